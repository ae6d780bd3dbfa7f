package sockets

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// gate lets one goroutine at a time read or write, and one close, of those whose connections go through it. What they wait for is not
// counted: a connection that has nothing to read is outside.
//
// A goroutine in a system call has a thread to itself, and on a busy machine, where a thread may lose the processor in the middle of one, as
// many connections take as many threads. Where no more can be made (pids.max, ulimit -u) the Go runtime ends the program
// (runtime/os_linux.go, newosproc).
type gate struct {
	transfer sync.Mutex
	closing  sync.Mutex // apart: who closes waits until nobody transfers
}

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
		n, err = c.transfer(syscall.Read, fd, p)
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
			if m, err = c.transfer(syscall.Write, fd, p[n:]); err != nil {
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

// transfer makes a system call that does not block, since Go's sockets are non-blocking.
func (c *gated) transfer(call func(int, []byte) (int, error), fd uintptr, p []byte) (n int, err error) {
	c.gate.transfer.Lock()
	defer c.gate.transfer.Unlock()
	for {
		if n, err = call(int(fd), p); err != syscall.EINTR {
			return n, err
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
