package health

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/sockets"
)

// MaxConnections is how many connections are open at a time. One more closes the oldest: clients that
// hold theirs, or send nothing, must not keep a probe out, or the kubelet would end the container.
const MaxConnections = 64

// Listener accepts connections for probes.
type Listener struct {
	net.Listener
	set   *sockets.Set
	close sync.Once

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
	set, err := sockets.Bind([]sockets.Address{address}, log.V(1))
	if err != nil {
		return nil, err
	}
	l := &Listener{set: set}
	if l.Listener, err = listener(set.Sockets()[0].FD()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot serve HTTP on %s: %w", uri, err), set.Close())
	}
	return l, nil
}

// listener returns a net.Listener on a duplicate of fd, and leaves fd to its owner.
func listener(fd int) (net.Listener, error) {
	duplicate, err := linux.DuplicateFrom(fd, 3)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(duplicate), "http")
	defer file.Close() // FileListener works on another duplicate
	return net.FileListener(file)
}

// Bound returns where it listens, as a net-uri.
func (l *Listener) Bound() string { return l.set.Sockets()[0].Bound() }

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

// Close ends Accept and removes the path of a unix socket. Further calls do nothing.
func (l *Listener) Close() (err error) {
	l.close.Do(func() { err = errors.Join(l.Listener.Close(), l.set.Close()) })
	return err
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
