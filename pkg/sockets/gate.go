package sockets

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// A goroutine in a system call has a thread to itself, and on a busy machine, where a thread may lose the processor in the middle of one, as
// many connections take as many threads. Where no more can be made (pids.max, ulimit -u) the Go runtime ends the program
// (runtime/os_linux.go, newosproc). So connections read and write by calls that do not block, without a thread of their own, and wait as Go's
// own do. One of them closes at a time.

// closing is held by the connection that closes.
var closing sync.Mutex

// gated is a connection that takes no thread.
type gated struct {
	net.Conn
	raw syscall.RawConn
}

// gate returns c as a connection that takes no thread. The caller closes it instead of c, which must have a descriptor.
func gate(c net.Conn) (net.Conn, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T has no descriptor", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &gated{c, raw}, nil
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
	case rawErr != nil: // closed, or past its deadline
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
	closing.Lock()
	defer closing.Unlock()
	return c.Conn.Close()
}
