//go:build unix

package child

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// DrainTimeout is the time that [Serve] gives to connections: less than the 30 s after which crank
// kills by default.
const DrainTimeout = 25 * time.Second

// Serve is [ServeDraining] with [DrainTimeout].
func Serve(ctx context.Context, srv *http.Server, listeners ...net.Listener) error {
	return ServeDraining(ctx, DrainTimeout, srv, listeners...)
}

// ServeDraining serves HTTP/1.1 on the listeners until ctx ends, then drains without losing a
// request, and returns nil:
//
//  1. It closes the listeners. New connections wait in the shared queue for the next generation;
//     those that were already accepted are served.
//  2. It answers one more request on every connection, with "Connection: close". A connection that
//     is idle is waited for: its client may be sending just now.
//  3. After timeout it closes what is left. Where a request was cut short the error says so.
//
// [http.Server.Shutdown] alone closes idle connections at once, and also drops a request whose
// header is being read at that moment (net/http's conn.serve returns when it finds the server
// shutting down).
//
// It takes srv over: Handler and ConnState are wrapped, and srv ends shut down. Hijacked connections are
// the app's own, and so is ending a stream early: watch ctx. If a listener fails, the others are
// drained too, and its error is returned.
func ServeDraining(ctx context.Context, timeout time.Duration, srv *http.Server, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("cannot serve: there is no listener")
	}
	d := &drain{conns: map[net.Conn]http.ConnState{}, changed: make(chan struct{}, 1)}
	d.wrap(srv)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	results := make(chan error, len(listeners))
	for _, ln := range listeners {
		go func() {
			err := srv.Serve(ln)
			results <- err
			cancel()
		}()
	}
	<-ctx.Done()
	d.begun.Store(true)
	for _, ln := range listeners {
		ln.Close()
	}
	var errs []error
	for range listeners {
		// When Serve has returned, all that it accepted is known to d.
		if err := <-results; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("cannot serve: %w", err))
		}
	}
	errs = append(errs, d.finish(srv, timeout))
	return errors.Join(errs...)
}

// drain knows every connection that was accepted and is not closed.
type drain struct {
	begun   atomic.Bool
	changed chan struct{} // capacity 1: a connection is gone

	mu    sync.Mutex
	conns map[net.Conn]http.ConnState
}

func (d *drain) wrap(srv *http.Server) {
	handler, connState := srv.Handler, srv.ConnState
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		d.track(conn, state)
		if connState != nil {
			connState(conn, state)
		}
	}
}

func (d *drain) track(conn net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state != http.StateClosed && state != http.StateHijacked {
		d.conns[conn] = state
		return
	}
	delete(d.conns, conn)
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// count returns how many connections there are, and how many of them are in a request.
func (d *drain) count() (all, active int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, state := range d.conns {
		if state == http.StateActive {
			active++
		}
	}
	return len(d.conns), active
}

// finish waits until the connections are gone or timeout has passed, and shuts srv down.
func (d *drain) finish(srv *http.Server, timeout time.Duration) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		if all, _ := d.count(); all == 0 {
			return srv.Shutdown(context.Background())
		}
		select {
		case <-d.changed:
		case <-deadline.C:
			_, active := d.count()
			if err := srv.Close(); err != nil {
				return err
			}
			if active > 0 {
				return fmt.Errorf("cannot finish %d requests in %v: they were cut short", active, timeout)
			}
			return nil
		}
	}
}
