//go:build unix

package child

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// DrainTimeout is the default of [Server].Timeout: less than the 30 s after which crank kills.
	DrainTimeout = 25 * time.Second
	// DrainSpread is the default of [Server].Spread.
	DrainSpread = 10 * time.Second
)

// Server is how a server lives. The zero value is ready to use.
type Server struct {
	// Timeout is what connections have from the begin of the drain on, before they are closed.
	// 0: DrainTimeout.
	Timeout time.Duration
	// Spread is the time from the begin of the drain on in which long-lived connections are told
	// to leave, each at a random point. 0: DrainSpread, but no more than two fifths of Timeout, so
	// that the last ones have time to; negative: at once.
	Spread time.Duration
	// Quiet leaves it to the app to say Ready, Failed and Stopping: one that runs two servers, or
	// that serves before it is ready.
	Quiet bool
}

// Serve is the Serve of the zero [Server].
func Serve(ctx context.Context, srv *http.Server, listeners ...net.Listener) error {
	return Server{}.Serve(ctx, srv, listeners...)
}

// Serve serves HTTP until ctx ends, then drains: see the life of a server, in the package's comment.
// Without listeners it takes all stream sockets that the process was given, or binds srv.Addr where
// there is none. It returns nil where nothing was cut short. If a listener fails, the others are
// drained too, and its error is returned.
//
// It takes srv over: its hooks are wrapped. They see the connections that were accepted; Hijack
// returns one whose method NetConn() net.Conn returns that. srv ends shut down, and the functions of
// RegisterOnShutdown are called only then, when no connection is left: streams and WebSockets that
// net/http's Shutdown would end by them watch [Leaving] here.
//
// For HTTPS use [TLS]. Without it no listener speaks TLS, as with [http.Server.Serve]. What comes
// from [tls.NewListener] is net/http's own: HTTP/2 clients then get one GOAWAY, with their next
// answer, and lose what they have begun meanwhile; hijacked connections are neither told nor waited for. HTTP/2
// without TLS is served where srv.Protocols says so, and ends in two steps as well.
func (s Server) Serve(ctx context.Context, srv *http.Server, listeners ...net.Listener) error {
	listeners, err := s.take(cmp.Or(srv.Addr, ":http"), listeners)
	if err != nil {
		return err
	}
	c := newConns(ctx)
	secure := secured(srv)
	c.hook(srv)
	c.hook(secure)
	err = s.live(ctx, c, listeners, func(ln net.Listener, began func()) error {
		if t, ok := ln.(*tlsListener); ok {
			return secure.Serve(&listener{t.plain, began, t.upgrade(c, secure)})
		}
		return srv.Serve(&listener{ln, began, c.wrap})
	})
	for _, srv := range []*http.Server{srv, secure} {
		// No connection is left that could be lost. Shutdown alone would wait for handlers.
		err = errors.Join(err, srv.Close(), srv.Shutdown(context.Background()))
	}
	return err
}

// take returns what to listen on. Where there is nothing it says so.
func (s Server) take(address string, listeners []net.Listener) ([]net.Listener, error) {
	if len(listeners) > 0 {
		return listeners, nil
	}
	listeners, err := Listeners()
	if err == nil && len(listeners) == 0 {
		listeners = make([]net.Listener, 1)
		listeners[0], err = bind(address)
	}
	if err != nil {
		err = fmt.Errorf("cannot serve: %w", err)
		return nil, errors.Join(err, s.fail(err))
	}
	return listeners, nil
}

func bind(address string) (net.Listener, error) {
	if address == "" {
		return nil, errors.New("no socket was passed: give a listener, or run it under crank with -bind")
	}
	return net.Listen("tcp", address)
}

// live is the life of a server. serve accepts from a listener until that is closed; it calls began
// when it begins to.
func (s Server) live(ctx context.Context, c *conns, listeners []net.Listener, serve func(ln net.Listener, began func()) error) error {
	ctx, drain := context.WithCancel(ctx)
	defer drain()
	results := c.serveAll(ctx, drain, listeners, serve)
	var errs []error
	ready := ctx.Err() == nil
	if ready && !s.Quiet {
		if err := Ready(); err != nil {
			errs = append(errs, err)
			drain()
		}
	}
	<-ctx.Done()
	c.draining.Store(true)
	for _, ln := range listeners {
		ln.Close()
	}
	for range listeners {
		// When serve has returned, c knows all that it accepted.
		if err := <-results; err != nil {
			errs = append(errs, fmt.Errorf("cannot serve: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil && !ready {
		errs = append(errs, s.fail(err))
	}
	return errors.Join(append(errs, s.drain(c))...)
}

// serveAll begins to serve each listener, and returns once all accept, or ctx has ended. An end of one that is no drain is
// one for all. Of each comes what was wrong with its end.
func (c *conns) serveAll(ctx context.Context, drain func(), listeners []net.Listener, serve func(ln net.Listener, began func()) error) <-chan error {
	accepting := make(chan struct{}, len(listeners))
	results := make(chan error, len(listeners))
	for _, ln := range listeners {
		began := sync.OnceFunc(func() { accepting <- struct{}{} })
		go func() {
			err := serve(ln, began)
			if c.draining.Load() && errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
				err = nil
			}
			results <- err
			drain()
		}()
	}
	for range listeners {
		select {
		case <-accepting:
		case <-ctx.Done():
		}
	}
	return results
}

// drain has every connection leave, and waits for that.
func (s Server) drain(c *conns) error {
	timeout := cmp.Or(s.Timeout, DrainTimeout)
	said := s.sayStopping()
	c.leave(cmp.Or(min(s.Spread, timeout), min(DrainSpread, timeout*2/5)))
	err := c.wait(timeout)
	select {
	case <-said:
	case <-time.After(time.Second): // one that does not hear it any more does not wait for it either
	}
	return err
}

// sayStopping does not wait for a supervisor that does not read: the connections come first.
func (s Server) sayStopping() (said <-chan struct{}) {
	done := make(chan struct{})
	go func() { // ends soon: Notify waits for 5 s at most
		defer close(done)
		if !s.Quiet {
			_ = Stopping()
		}
	}()
	return done
}

func (s Server) fail(err error) error {
	if s.Quiet {
		return nil
	}
	return Failed(err.Error())
}

// listener hands its connections on as accepted makes them.
type listener struct {
	net.Listener
	began    func()
	accepted func(net.Conn) net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	l.began()
	for {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			return l.accepted(conn), nil
		case errors.Is(err, errNotListening):
			time.Sleep(acceptPause) // no event reports that the socket listens again
		default:
			return nil, err
		}
	}
}

// errNotListening is the error of accept(2) after another generation, which shares the socket, called shutdown(2) on it. crank
// restores the socket.
const errNotListening = syscall.EINVAL

// hook makes srv tell c of its connections and requests.
func (c *conns) hook(srv *http.Server) {
	handler, connState, connContext, baseContext := srv.Handler, srv.ConnState, srv.ConnContext, srv.BaseContext
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(*peer)
		if !ok { // a protocol of srv.TLSNextProto
			handler.ServeHTTP(w, r)
			return
		}
		c.enter(p)
		defer c.exit(p)
		conn, followed := p.conn.(*conn)
		if followed && conn.tls != nil {
			r.TLS = conn.tlsState
		}
		if r.ProtoMajor < 2 {
			a := &answer{ResponseWriter: w, conns: c}
			handler.ServeHTTP(a, r)
			a.begin() // it is sent now at the latest
			return
		}
		if c.draining.Load() && !followed { // the others are told with GOAWAY
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		c.set(conn, state)
		if connState != nil {
			connState(accepted(conn), state)
		}
	}
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		p := c.add(conn, http.StateNew)
		if connContext != nil {
			ctx = connContext(ctx, accepted(conn))
		}
		return context.WithValue(ctx, peerKey{}, p)
	}
	if baseContext != nil {
		srv.BaseContext = func(ln net.Listener) context.Context { return baseContext(ln.(*listener).Listener) }
	}
}
