// Package server answers crankctl: it turns requests on the control socket into calls of the
// supervisor, and what the supervisor publishes into answers.
//
// A handler never makes the supervisor wait: it follows a swap through the event history and its
// ticket, and a client that does not read loses its connection after WriteTimeout.
package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/supervisor"
)

// The limits of a request and of a client that does not read or write.
const (
	MaxHeaderBytes    = 16 << 10
	MaxBodyBytes      = 1 << 20
	ReadHeaderTimeout = 5 * time.Second
	ReadBodyTimeout   = 10 * time.Second
	WriteTimeout      = 10 * time.Second // of one line of a stream
	IdleTimeout       = 30 * time.Second

	// shutdownGrace is how long answers that are being written may take when crank ends.
	shutdownGrace = 500 * time.Millisecond
)

// routes is everything that the server answers. A verb's name is also its label in the metrics.
var routes = []route{
	{control.PathInfo, http.MethodGet, "info", (*Server).info},
	{control.PathStatus, http.MethodGet, "status", (*Server).status},
	{control.PathReady, http.MethodGet, "ready", (*Server).ready},
	{control.PathPS, http.MethodGet, "ps", (*Server).ps},
	{control.PathRun, http.MethodPost, "run", (*Server).run},
	{control.PathReload, http.MethodPost, "reload", (*Server).reload},
	{control.PathRollback, http.MethodPost, "rollback", (*Server).rollback},
	{control.PathAbort, http.MethodPost, "abort", (*Server).abort},
	{control.PathKill, http.MethodPost, "kill", (*Server).kill},
	{control.PathWait, http.MethodGet, "wait", (*Server).wait},
	{control.PathEvents, http.MethodGet, "events", (*Server).events},
}

type route struct {
	path, method, verb string
	handle             func(*Server, *exchange) error
}

// Verbs returns the names of all verbs, for whoever counts requests by them.
func Verbs() []string {
	var verbs []string
	for _, r := range routes {
		verbs = append(verbs, r.verb)
	}
	return verbs
}

// Results are the second argument of Options.Observe.
var Results = []string{"ok", "failed", "refused", "invalid", "denied", "error"}

// Supervisor is what the server needs of supervisor.Supervisor, whose comments apply.
type Supervisor interface {
	Swap(context.Context, supervisor.Request) (supervisor.Ticket, error)
	Abort(context.Context, supervisor.Asker) (generation int, err error)
	Kill(context.Context, supervisor.KillRequest) ([]supervisor.GenerationStatus, error)
	Status() *supervisor.Status
	Events(seq int64) ([]supervisor.Event, <-chan struct{})
	Done() <-chan struct{}
}

// Options are what a Server works with. Only Supervisor is required.
type Options struct {
	Supervisor Supervisor
	// Info describes crank itself, without Current. It is called for every request that needs it and
	// must not block.
	Info func() control.Info
	// Cwd is the directory of the generations whose command names none; empty: crank's own working directory.
	Cwd string
	// Redact returns a command as it may be shown.
	Redact func(argv []string) []string
	// ReadOnly refuses everything but questions.
	ReadOnly bool
	// Observe is called once for every request that names a verb, with one of Results.
	Observe func(verb, result string)
	Log     logr.Logger // the zero value logs nothing
}

// Server serves the control socket.
type Server struct {
	Options
	http         *http.Server
	writeTimeout time.Duration
	savedTimeout time.Duration
	pollInterval time.Duration
}

// New returns a server; Serve starts it.
func New(o Options) *Server {
	if o.Info == nil {
		o.Info = func() control.Info { return control.Info{} }
	}
	if o.Redact == nil {
		o.Redact = func(argv []string) []string { return argv }
	}
	if o.Observe == nil {
		o.Observe = func(verb, result string) {}
	}
	s := &Server{Options: o, writeTimeout: WriteTimeout, savedTimeout: savedTimeout, pollInterval: pollInterval}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: ReadHeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ConnContext:       withConn,
		ErrorLog:          log.New(logWriter{o.Log}, "", 0),
	}
	return s
}

// Serve answers on l until Close, and closes l. It always returns an error, http.ErrServerClosed
// after Close.
func (s *Server) Serve(l *Listener) error { return s.http.Serve(l) }

// Close ends Serve. Answers that are being written get half a second; streams see that the
// supervisor is done and end by themselves.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := s.http.Shutdown(ctx); err == nil {
		return nil
	}
	return s.http.Close()
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// ServeHTTP implements http.Handler for connections that a Listener accepted.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{Request: r, w: w, rc: http.NewResponseController(w), timeout: s.writeTimeout}
	w.Header().Set(control.HeaderName, s.Supervisor.Status().Name)
	verb, err := s.serve(x)
	if err != nil {
		x.fail(err)
	}
	if verb != "" {
		s.Observe(verb, resultOf(err))
	}
}

func (s *Server) serve(x *exchange) (verb string, err error) {
	if err := x.identify(); err != nil {
		s.Log.Info("control request denied", "peer", peer(x.asker), "uid", x.asker.UID, "pid", x.asker.PID, "asker", x.asker.Name, "path", x.URL.Path)
		return "", err
	}
	i := slices.IndexFunc(routes, func(r route) bool { return r.path == x.URL.Path })
	if i < 0 {
		return "", invalidf(http.StatusNotFound, "there is nothing at %s: this crank knows %s", x.URL.Path, paths())
	}
	route := routes[i]
	if x.Method != route.method {
		x.w.Header().Set("Allow", route.method)
		return route.verb, invalidf(http.StatusMethodNotAllowed, "%s takes %s, not %s", route.path, route.method, x.Method)
	}
	if s.ReadOnly && route.method != http.MethodGet {
		return route.verb, &supervisor.Refusal{Code: control.CodeReadOnly, Message: "the control socket answers questions only (-ctl-readonly): to update, send crank SIGHUP"}
	}
	return route.verb, route.handle(s, x)
}

func paths() string {
	var all []string
	for _, r := range routes {
		all = append(all, r.path)
	}
	return strings.Join(all, ", ")
}

// identify finds out who asks, and denies whoever is neither crank's own user nor root.
func (x *exchange) identify() error {
	c, ok := x.Context().Value(connKey{}).(*conn)
	if !ok {
		return deniedf(http.StatusForbidden, "it is not known who asks")
	}
	x.asker = c.asker
	if c.err != nil {
		return deniedf(http.StatusForbidden, "it is not known who asks: %v", c.err)
	}
	if len(c.token) > 0 {
		return x.checkToken(c.token)
	}
	if own := geteuid(); c.asker.UID != own && c.asker.UID != 0 {
		return deniedf(http.StatusForbidden, "uid %d may not control this crank: only %s may", c.asker.UID, owners(own))
	}
	return nil
}

// peer names the sender of a denied request for the log, which counts by it (logging.Peer). It omits ports, pids and names: a
// process can have any number of them.
func peer(asker supervisor.Asker) string {
	if host, _, err := net.SplitHostPort(strings.TrimPrefix(asker.Name, "tcp://")); err == nil && asker.UID < 0 {
		return "tcp://" + host
	}
	return fmt.Sprintf("uid %d", asker.UID)
}

// owners names who may control the crank of a user.
func owners(uid int) string {
	if uid == 0 {
		return "root"
	}
	return fmt.Sprintf("uid %d and root", uid)
}

// checkToken compares digests, so that neither content nor length of the token shows in the time.
func (x *exchange) checkToken(want []byte) error {
	token, _ := strings.CutPrefix(x.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256(want)
	if subtle.ConstantTimeCompare(a[:], b[:]) == 1 {
		return nil
	}
	x.w.Header().Set("WWW-Authenticate", "Bearer")
	return deniedf(http.StatusUnauthorized, "the token is missing or wrong: CRANK_CTL_TOKEN_FILE must name the file that crank reads")
}

// resultOf maps what a handler returned to one of Results.
func resultOf(err error) string {
	var refusal *supervisor.Refusal
	var answer *answerError
	var wire *control.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refusal):
		return "refused"
	case errors.As(err, &wire) && wire.Code == control.CodeFailed:
		return "failed"
	case errors.As(err, &answer) && answer.wire.Code == control.CodeInvalid:
		return "invalid"
	case errors.As(err, &answer) && answer.wire.Code == control.CodeDenied:
		return "denied"
	}
	return "error"
}

// logWriter carries what net/http complains about to the log.
type logWriter struct{ log logr.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.V(1).Info("control connection failed", "error", strings.TrimSpace(string(p)))
	return len(p), nil
}
