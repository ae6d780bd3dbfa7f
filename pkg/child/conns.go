//go:build unix

package child

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Leaving returns the context that ends when the connection of a request that [Serve] serves should
// end, and at its end at the latest. ctx is the request's, or one of its children. The connection may be
// hijacked, and the handler may have returned. Whatever stays for long watches it: a WebSocket, a
// stream of events, a long poll. Of a connection of [tls.NewListener] that was hijacked it never ends.
//
//	stop := context.AfterFunc(child.Leaving(r.Context()), sayGoodbye)
//
// Elsewhere the context never ends.
func Leaving(ctx context.Context) context.Context {
	if p, ok := ctx.Value(peerKey{}).(*peer); ok {
		return p.leaving
	}
	return context.Background()
}

// conns are the connections that have been accepted and are not over.
type conns struct {
	draining atomic.Bool
	values   context.Context // never ends
	changed  chan struct{}   // capacity 1: one is over

	mu  sync.Mutex
	all map[net.Conn]*peer
}

// peer is one of them.
type peer struct {
	conn     net.Conn
	state    http.ConnState // hijacked: it is the app's
	handlers int            // that run; with HTTP/2 they may outlive the connection
	leaving  context.Context
	leave    context.CancelFunc
}

type peerKey struct{}

// linger is how long an HTTP/2 connection stays that could be closed: its client may hang up itself, and may have
// begun a stream while it read that it should not, as Go's own does.
const linger = time.Second

func newConns(ctx context.Context) *conns {
	return &conns{values: context.WithoutCancel(ctx), changed: make(chan struct{}, 1), all: map[net.Conn]*peer{}}
}

func (c *conns) add(conn net.Conn, state http.ConnState) *peer {
	p := &peer{conn: conn, state: state}
	p.leaving, p.leave = context.WithCancel(c.values)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[conn] = p
	return p
}

// set is [http.Server].ConnState.
func (c *conns) set(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.all[conn]
	if !ok {
		return
	}
	if _, unknown := conn.(*tls.Conn); unknown && state == http.StateHijacked {
		p.leave = func() {} // its end will not be seen
		state = http.StateClosed
	}
	if state == http.StateIdle {
		answered(conn)
	}
	p.state = state
	c.forget(p)
}

// wrap leaves what only net/http can serve as it is.
func (c *conns) wrap(accepted net.Conn) net.Conn {
	if _, ok := accepted.(*tls.Conn); ok {
		return accepted
	}
	return c.follow(accepted)
}

// closed is the end of a connection that is the app's. Of others net/http tells the end.
func (c *conns) closed(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.all[conn]; ok && p.state == http.StateHijacked {
		p.state = http.StateClosed
		c.forget(p)
	}
}

func (c *conns) enter(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.handlers++
}

func (c *conns) exit(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.handlers--
	c.forget(p)
}

// forget is called with mu held.
func (c *conns) forget(p *peer) {
	if p.state != http.StateClosed || p.handlers > 0 {
		return
	}
	p.leave()
	delete(c.all, p.conn)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// leave tells every connection to leave.
func (c *conns) leave(spread time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.all {
		if conn, ok := p.conn.(*conn); ok {
			conn.drain()
		}
		if spread <= 0 {
			p.leave()
			continue
		}
		time.AfterFunc(rand.N(spread), p.leave)
	}
}

// wait returns when no connection is left. After timeout it closes them.
func (c *conns) wait(timeout time.Duration) error {
	deadline := time.After(timeout)
	for {
		c.mu.Lock()
		left := len(c.all)
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-c.changed:
		case <-deadline:
			return c.cut(timeout)
		}
	}
}

// answered forgets what has come.
func answered(c net.Conn) {
	if f, ok := c.(*conn); ok {
		f.heard.Store(false)
	}
}

// begun reports whether a part of a request has come on an idle or a new connection.
func begun(c net.Conn) bool {
	f, ok := c.(*conn)
	return ok && f.heard.Load()
}

// cut closes all connections. Where one was in use the error says so.
func (c *conns) cut(timeout time.Duration) error {
	var requests, hijacked int
	var left []net.Conn
	c.mu.Lock()
	for _, p := range c.all {
		used := true
		switch {
		case p.state == http.StateHijacked:
			hijacked++
		case p.handlers > 0:
			requests += p.handlers
		case p.state == http.StateActive, begun(p.conn): // it is being read
			requests++
		default:
			used = false
		}
		if secure, ok := accepted(p.conn).(*tls.Conn); ok && used {
			left = append(left, secure.NetConn()) // what is cut short must not look like an end
		}
		left = append(left, p.conn)
	}
	c.mu.Unlock()
	for _, conn := range left {
		conn.Close()
	}
	if requests+hijacked == 0 {
		return nil
	}
	return fmt.Errorf("cannot drain in %v: %d requests and %d long-lived connections were cut short", timeout, requests, hijacked)
}
