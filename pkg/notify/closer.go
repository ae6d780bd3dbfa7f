package notify

import (
	"sync"

	"github.com/crankctl/crank/pkg/linux"
)

// maxUnclosed is how many descriptors of one generation may wait to be closed; a message can add 253 more.
const maxUnclosed = 1024

// closer closes the descriptors that one generation sent, on a separate goroutine: closing what another process opened may take any
// time. A socket may linger, and so may one in the queue of a unix socket that was sent; the server of a FUSE file may not answer.
type closer struct {
	mu      sync.Mutex
	room    sync.Cond // signalled when a descriptor was closed
	fds     []int
	running bool
	closed  bool
}

func newCloser() *closer {
	c := &closer{}
	c.room.L = &c.mu
	return c
}

// add queues descriptors to be closed in this order. It returns immediately, unless too many are waiting: then it blocks until there
// is room. The closer's goroutine ends when it has closed them all.
func (c *closer) add(fds []int) {
	if len(fds) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.fds) > maxUnclosed && !c.closed {
		c.room.Wait()
	}
	c.fds = append(c.fds, fds...)
	if !c.running {
		c.running = true
		go c.run()
	}
}

func (c *closer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(c.fds) > 0; c.room.Broadcast() {
		fd := c.fds[0]
		c.fds = c.fds[1:]
		c.mu.Unlock()
		linux.CloseReceived(fd)
		c.mu.Lock()
	}
	c.fds, c.running = nil, false
	c.room.Broadcast()
}

// end makes add never wait again.
func (c *closer) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.room.Broadcast()
}

// wait returns when everything that was added is closed.
func (c *closer) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running {
		c.room.Wait()
	}
}
