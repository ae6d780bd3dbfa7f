//go:build unix

package child

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ServeTCP is the ServeTCP of the zero [Server].
func ServeTCP(ctx context.Context, handle func(leaving context.Context, conn net.Conn), listeners ...net.Listener) error {
	return Server{}.ServeTCP(ctx, handle, listeners...)
}

// ServeTCP is Serve for other protocols, over TCP, TLS or unix sockets. Each connection is handled in a
// goroutine of its own, and closed when handle returns. Without listeners it takes all stream sockets
// that the process was given.
//
// leaving ends when the client should go: at a random point of Spread once the drain has begun. Where handle
// is waiting for the client then, [context.AfterFunc] is the hook that tells the client to reconnect.
func (s Server) ServeTCP(ctx context.Context, handle func(leaving context.Context, conn net.Conn), listeners ...net.Listener) error {
	listeners, err := s.take("", listeners)
	if err != nil {
		return err
	}
	c := newConns(ctx)
	return s.live(ctx, c, listeners, func(ln net.Listener, began func()) error {
		began()
		for {
			accepted, err := ln.Accept()
			switch {
			case err == nil:
				p := c.add(c.follow(accepted), http.StateHijacked) // it is the app's
				go func() {
					defer p.conn.Close()
					handle(p.leaving, accepted)
				}()
			case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, errNotListening):
				time.Sleep(acceptPause)
			default:
				return err
			}
		}
	})
}

// acceptPause is how long to wait before accept is retried if no descriptor is free for another connection, or the socket does
// not listen: no event reports the end of either.
const acceptPause = 50 * time.Millisecond
