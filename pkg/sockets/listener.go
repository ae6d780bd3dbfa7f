package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
)

// Listener accepts the connections to a socket that this process serves itself.
type Listener struct {
	net.Listener
	set   *Set
	close sync.Once
}

// Listen binds one address of TCP or of a unix stream socket, as Bind does. The caller closes the
// Listener, which removes the path of a unix socket if it is still its own.
func Listen(a Address, log logr.Logger) (*Listener, error) {
	set, err := newSet([]Address{a}, false, log)
	if err != nil {
		return nil, err
	}
	l := &Listener{set: set}
	if l.Listener, err = accepting(set.Sockets()[0].FD()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot accept connections to %s: %w", a, err), set.Close())
	}
	return l, nil
}

// accepting returns a net.Listener on a duplicate of fd, and leaves fd to its owner.
func accepting(fd int) (net.Listener, error) {
	duplicate, err := linux.DuplicateFrom(fd, 3)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(duplicate), "listener")
	defer file.Close() // FileListener works on another duplicate
	return net.FileListener(file)
}

// Accept waits for a connection. All connections of all Listeners together take one thread to close, and none to read and write.
func (l *Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, err := gate(accepted)
	if err != nil {
		return nil, errors.Join(err, accepted.Close())
	}
	return c, nil
}

// Bound returns where it listens, as a net-uri.
func (l *Listener) Bound() string { return l.set.Sockets()[0].Bound() }

// CheckPath returns nil if the path of a unix socket is still this one's, as it was bound. Otherwise
// the error says what is there; it wraps fs.ErrNotExist if nothing is. Sockets without a path pass.
func (l *Listener) CheckPath() error {
	s := l.set.Sockets()[0]
	if s.file == nil {
		return nil
	}
	now, err := os.Lstat(s.address.Path)
	switch {
	case err != nil:
		return err
	case os.SameFile(now, s.file):
		// An inode number is not given to another file meanwhile: the bound socket keeps the inode.
		return nil
	}
	return fmt.Errorf("another file is at %s (%v, of uid %d): remove it", s.address.Path, now.Mode(), ownerOf(now).uid)
}

// Close ends Accept. Further calls do nothing.
func (l *Listener) Close() (err error) {
	l.close.Do(func() { err = errors.Join(l.Listener.Close(), l.set.Close()) })
	return err
}
