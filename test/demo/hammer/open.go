package hammer

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// open begins requests at their times until ctx ends, and returns when all have their answers.
func (r *Run) open(ctx context.Context) {
	var idle pool
	defer idle.close()
	var requests sync.WaitGroup
	defer requests.Wait()
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		due := began.Add(time.Duration(float64(n) / r.load.Rate * float64(time.Second)))
		// Whatever is due already begins at once: who sleeps too long is late, and does not leave requests out.
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return
		}
		keepAlive := n%(r.load.KeepAlive+r.load.Short) < r.load.KeepAlive
		requests.Go(func() { r.scheduled(due, keepAlive, &idle) })
	}
}

// scheduled is the request that was to begin at due.
func (r *Run) scheduled(due time.Time, keepAlive bool, idle *pool) {
	c := &connection{}
	if keepAlive {
		c = idle.get()
	}
	body, err := c.request(r.load, keepAlive)
	r.count(c, time.Since(due), body, err)
	idle.put(c)
}

// pool holds the kept connections that no request uses.
type pool struct {
	mu   sync.Mutex
	idle []*connection
}

// get returns a connection that is still open as far as this side can know, or one that is to be made. One
// that the server has closed while nobody used it is lost to nobody: no HTTP client would use it again.
func (p *pool) get() *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.open() {
			return c
		}
		c.close()
	}
	return &connection{}
}

// put keeps c if it is still there.
func (p *pool) put(c *connection) {
	if c.conn == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

func (p *pool) close() {
	for _, c := range p.idle {
		c.close()
	}
}

// open reports whether nothing has come on a connection on which nothing is expected: neither its end nor
// an answer that nobody has asked for.
func (c *connection) open() bool {
	raw, err := c.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && quiet
}

var _ = []syscall.Conn{&net.TCPConn{}, &net.UnixConn{}}
