package health

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/sockets"
)

// MaxConnections is how many connections are open at a time. One more closes the oldest: clients that
// hold theirs, or send nothing, must not keep a probe out, or the kubelet would end the container.
const MaxConnections = 64

// Listener accepts connections for probes.
type Listener struct {
	*sockets.Listener

	mu   sync.Mutex
	open []*conn // the oldest first
}

// Listen binds a net-uri as -bind does: TCP or a unix stream socket. The caller closes the Listener,
// which removes a unix socket's path if it is still its own.
func Listen(uri string, log logr.Logger) (*Listener, error) {
	address, err := sockets.ParseAddress(uri)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(address.Network, "tcp") && address.Network != "unix" {
		return nil, fmt.Errorf("cannot serve HTTP on %s: want a TCP address, as in :9090, or a unix socket's path", uri)
	}
	l, err := sockets.Listen(address, log.V(1))
	if err != nil {
		return nil, err
	}
	return &Listener{Listener: l}, nil
}

// Accept waits for a connection, and closes the oldest one where there are too many.
func (l *Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, l: l}
	if oldest := l.add(c); oldest != nil {
		_ = oldest.Close()
	}
	return c, nil
}

// add returns the connection that has to go.
func (l *Listener) add(c *conn) (oldest *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= MaxConnections {
		oldest = l.open[0]
	}
	l.open = append(l.open, c)
	return oldest
}

// conn is an accepted connection.
type conn struct {
	net.Conn
	l *Listener
}

// Close may be called more than once, by net/http and by Accept.
func (c *conn) Close() error {
	c.l.mu.Lock()
	c.l.open = slices.DeleteFunc(c.l.open, func(o *conn) bool { return o == c })
	c.l.mu.Unlock()
	return c.Conn.Close()
}
