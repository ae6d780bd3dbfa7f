package sockets

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// gate keeps connections from taking a thread each, all Listeners' together. What they wait for takes none anyway, as with Go's own.
//
// A goroutine in a system call has a thread to itself, and on a busy machine, where a thread may lose the processor in the middle of one, as
// many connections take as many threads. Where no more can be made (pids.max, ulimit -u) the Go runtime ends the program
// (runtime/os_linux.go, newosproc). So they read and write without that: their calls do not block. And one closes at a time.
type gate struct{ closing sync.Mutex }

// shared is the one that all share.
var shared gate

// conn returns c behind the gate. The caller closes it in the place of c, which must have a descriptor.
func (g *gate) conn(c net.Conn) (net.Conn, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T has no descriptor", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &gated{c, raw, g}, nil
}

// gated is a connection behind a gate.
type gated struct {
	net.Conn
	raw  syscall.RawConn
	gate *gate
}

// SyscallConn implements syscall.Conn.
func (c *gated) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read implements net.Conn.
func (c *gated) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	rawErr := c.raw.Read(func(fd uintptr) (done bool) {
		n, err = transfer(linux.ReadNow, fd, p)
		return err != syscall.EAGAIN
	})
	switch {
	case rawErr != nil: // closed, or too late
		return 0, rawErr
	case err != nil:
		return 0, c.failed("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *gated) Write(p []byte) (n int, err error) {
	rawErr := c.raw.Write(func(fd uintptr) (done bool) {
		for n < len(p) {
			var m int
			if m, err = transfer(linux.WriteNow, fd, p[n:]); err != nil {
				return err != syscall.EAGAIN
			}
			n += m
		}
		return true
	})
	switch {
	case rawErr != nil:
		return n, rawErr
	case err != nil:
		return n, c.failed("write", err)
	}
	return n, nil
}

func transfer(call func(int, []byte) (int, syscall.Errno), fd uintptr, p []byte) (int, error) {
	for {
		switch n, errno := call(int(fd), p); errno {
		case 0:
			return n, nil
		case syscall.EINTR:
		default:
			return n, errno
		}
	}
}

func (c *gated) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Close implements net.Conn.
func (c *gated) Close() error {
	c.gate.closing.Lock()
	defer c.gate.closing.Unlock()
	return c.Conn.Close()
}
