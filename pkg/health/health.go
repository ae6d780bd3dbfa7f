// Package health answers probes over HTTP: is crank alive, is the app ready, was it ever.
package health

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/pkg/version"
)

// The limits of a client that does not read or write.
const (
	MaxHeaderBytes = 16 << 10
	ReadTimeout    = 5 * time.Second
	WriteTimeout   = 10 * time.Second // of a whole answer
	IdleTimeout    = 30 * time.Second

	// shutdownGrace is how long answers that are being written may take when crank ends.
	shutdownGrace = 100 * time.Millisecond
)

// deadAfter is how long the loop may go without a tick; it ticks every second.
const deadAfter = 30 * time.Second

// probes is every probe and what it looks at: 200 if nothing of it fails, else 503.
var probes = []struct {
	path   string
	checks []check
}{
	{"/livez", []check{loop}},
	{"/readyz", []check{current, shutdown}},
	{"/startupz", []check{started}},
	{"/healthz", []check{loop}}, // the older name of /livez
}

// The other paths.
const (
	pathMetrics = "/metrics"
	pathVersion = "/version"
)

// check is one line of ?verbose. failed returns why it fails; empty: it does not.
type check struct {
	name   string
	failed func(s *Server, st *supervisor.Status) string
}

var (
	// loop is about crank alone. The app never fails it: a container that is killed because a new
	// generation is slow loses the one that serves.
	loop = check{"loop", func(s *Server, _ *supervisor.Status) string {
		if stalled := s.Supervisor.Stalled(); stalled >= deadAfter {
			return fmt.Sprintf("the supervisor's loop has not ticked for %v", stalled.Truncate(time.Second))
		}
		return ""
	}}

	current = check{"current", func(_ *Server, st *supervisor.Status) string {
		switch {
		case st.Ready, st.Stopping && st.Current != 0: // shutdown says the latter
			return ""
		case st.Stopping:
			return "no generation is current"
		}
		return st.Reason
	}}

	shutdown = check{"shutdown", func(_ *Server, st *supervisor.Status) string {
		if st.Stopping {
			return "crank is shutting down"
		}
		return ""
	}}

	started = check{"started", func(_ *Server, st *supervisor.Status) string {
		if !st.EverCurrent {
			return "no generation was current yet"
		}
		return ""
	}}
)

// Supervisor is what probes need of supervisor.Supervisor, whose comments apply.
type Supervisor interface {
	Status() *supervisor.Status
	Stalled() time.Duration
}

// Options are what a Server works with. Only Supervisor is required.
type Options struct {
	Supervisor Supervisor
	Metrics    http.Handler // of /metrics; nil: there is none
	Log        logr.Logger  // the zero value logs nothing
}

// Server answers from the supervisor's snapshot: nothing that a client does reaches its loop.
type Server struct {
	Options
	http *http.Server
}

// New returns a server; Serve starts it.
func New(o Options) *Server {
	s := &Server{Options: o}
	s.http = &http.Server{
		Handler:        s,
		ReadTimeout:    ReadTimeout,
		WriteTimeout:   WriteTimeout,
		IdleTimeout:    IdleTimeout,
		MaxHeaderBytes: MaxHeaderBytes,
		ErrorLog:       log.New(logWriter{o.Log}, "", 0),
	}
	return s
}

// Serve answers on l until Close, and closes l. It always returns an error, http.ErrServerClosed
// after Close.
func (s *Server) Serve(l *Listener) error {
	return s.http.Serve(l)
}

// Close ends Serve. Answers that are being written get a tenth of a second.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := s.http.Shutdown(ctx); err == nil {
		return nil
	}
	return s.http.Close()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed, "there are only questions here: use GET")
		return
	}
	for _, p := range probes {
		if r.URL.Path == p.path {
			s.probe(w, r, strings.TrimPrefix(p.path, "/"), p.checks)
			return
		}
	}
	switch {
	case r.URL.Path == pathMetrics && s.Metrics != nil:
		s.Metrics.ServeHTTP(w, r)
	case r.URL.Path == pathVersion:
		serveVersion(w)
	default:
		answer(w, http.StatusNotFound, "there is nothing here: try "+strings.Join(s.paths(), ", "))
	}
}

func (s *Server) paths() []string {
	var all []string
	for _, p := range probes {
		all = append(all, p.path)
	}
	if s.Metrics != nil {
		all = append(all, pathMetrics)
	}
	return append(all, pathVersion)
}

// probe runs the checks against one snapshot. The form is that of Kubernetes' own probes
// (https://kubernetes.io/docs/reference/using-api/health-checks/), but the reasons are not withheld.
func (s *Server) probe(w http.ResponseWriter, r *http.Request, name string, checks []check) {
	status := s.Supervisor.Status()
	query := r.URL.Query()
	exclude := query["exclude"]
	code, verdict := http.StatusOK, "passed"
	var lines []string
	for _, c := range checks {
		if slices.Contains(exclude, c.name) {
			exclude = slices.DeleteFunc(exclude, func(e string) bool { return e == c.name })
			lines = append(lines, fmt.Sprintf("[+]%s excluded: ok", c.name))
			continue
		}
		why := c.failed(s, status)
		if why == "" {
			lines = append(lines, fmt.Sprintf("[+]%s ok", c.name))
			continue
		}
		code, verdict = http.StatusServiceUnavailable, "failed"
		lines = append(lines, fmt.Sprintf("[-]%s failed: %s", c.name, why))
	}
	for _, e := range exclude {
		lines = append(lines, fmt.Sprintf("warn: there is no check %q to exclude", e))
	}
	if code == http.StatusOK && !query.Has("verbose") {
		answer(w, code, "ok")
		return
	}
	answer(w, code, append(lines, name+" check "+verdict)...)
}

func answer(w http.ResponseWriter, code int, lines ...string) {
	w.WriteHeader(code)
	_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n") // a client that is gone needs no answer
}

func serveVersion(w http.ResponseWriter) {
	// As version.Info, by the names that JSON has elsewhere.
	type info struct {
		Version  string `json:"version"`
		Revision string `json:"revision"`
		Time     string `json:"time"`
		Modified bool   `json:"modified"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(info(version.Get())) // as in answer
}

// logWriter carries what net/http complains about to the log.
type logWriter struct{ log logr.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.V(1).Info("http connection failed", "error", strings.TrimSpace(string(p)))
	return len(p), nil
}
