package launch

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// What a process claims to be is in its environment, which the process itself can make as large, as empty or as slow to read as it
// likes. So it is read once, by dedicated goroutines and under no lock, and callers ask here for the result.

const (
	// claimTimeout is how long a claim may take. A process that hides its environment for longer has no claim.
	claimTimeout = time.Second
	// claimReaders is how many goroutines read, and so how many threads hanging reads can occupy.
	claimReaders = 2
	// manyClaims is how many claims there may be before those of processes that are gone are dropped.
	manyClaims = 64
)

// looksAgain holds the delays between the looks at a process that shows no environment. All waiting processes are looked at together, so
// that many take no longer than one.
var looksAgain = [...]time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond}

// identity identifies a process for good.
type identity struct {
	pid   int
	start uint64
}

func identityOf(e proc.Entry) identity { return identity{e.PID, e.Start} }

// claim is what the environment of a process says. It is valid once answered is closed.
type claim struct {
	of       identity
	until    time.Time // the deadline for waiting
	looks    int       // that showed no environment
	due      time.Time
	answered chan struct{}

	generation int // CRANK_GENERATION, if CRANK_NAME is this instance's; 0: none
	listenPID  string
}

// claims holds the claims of all processes that were ever asked for and still exist. Its methods may be called from any goroutine.
type claims struct {
	environ func(pid int) (map[string]string, error) // reads the variables of a claim; it may block forever
	name    string                                   // CRANK_NAME
	settled func()                                   // called when nothing is left to read; must not block
	timeout time.Duration                            // claimTimeout

	mu      sync.Mutex // never held during a read
	known   map[identity]*claim
	many    int                           // how many known ones start a sweep
	queues  [len(looksAgain) + 1][]*claim // by the number of looks taken; each in the order of due
	readers int
	wanted  chan struct{} // wakes a waiting reader
	closed  chan struct{}
}

func newClaims(name string, settled func()) *claims {
	return &claims{
		environ: func(pid int) (map[string]string, error) {
			return proc.Environ(pid, "CRANK_GENERATION", "CRANK_NAME", "LISTEN_PID")
		},
		name: name, settled: settled, timeout: claimTimeout, known: map[identity]*claim{}, many: manyClaims,
		wanted: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

// close ends the goroutines, except those whose read hangs. It is called once.
func (c *claims) close() { close(c.closed) }

// ask returns the claim of a process, which may not be answered yet. It does not block.
func (c *claims) ask(e proc.Entry) *claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := identityOf(e)
	if cl := c.known[id]; cl != nil {
		return cl
	}
	cl := &claim{of: id, until: time.Now().Add(c.timeout), answered: make(chan struct{})}
	c.known[id] = cl
	c.queues[0] = append(c.queues[0], cl)
	if c.readers < claimReaders {
		c.readers++
		go c.read() // ends when nothing is left to read
	}
	select {
	case c.wanted <- struct{}{}:
	default:
	}
	return cl
}

// pending reports whether an answer may still come in time.
func (cl *claim) pending() bool {
	select {
	case <-cl.answered:
		return false
	default:
		return time.Now().Before(cl.until)
	}
}

// wait returns when there is an answer, or the time for it is over.
func (cl *claim) wait() {
	timer := time.NewTimer(time.Until(cl.until))
	defer timer.Stop()
	select {
	case <-cl.answered:
	case <-timer.C:
	}
}

// says returns the claim; ok is false if there is no answer.
func (cl *claim) says() (generation int, listenPID string, ok bool) {
	select {
	case <-cl.answered:
		return cl.generation, cl.listenPID, true
	default:
		return 0, "", false
	}
}

// read answers claims until none is left, or close is called.
func (c *claims) read() {
	for {
		cl, wait := c.next()
		switch {
		case cl != nil:
			values, err := c.environ(cl.of.pid)
			c.take(cl, values, err)
			c.sweep()
		case wait > 0:
			select {
			case <-time.After(wait):
			case <-c.wanted:
			case <-c.closed:
			}
		default:
			return
		}
	}
}

// next returns the next claim to look at, or the time until one is due. If it returns neither, the reader has to end.
func (c *claims) next() (cl *claim, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		c.readers--
		return nil, 0
	default:
	}
	for i, queue := range c.queues {
		if len(queue) == 0 {
			continue
		}
		until := time.Until(queue[0].due)
		if until <= 0 {
			c.queues[i] = queue[1:]
			return queue[0], 0
		}
		if wait == 0 || until < wait {
			wait = until
		}
	}
	if wait == 0 {
		c.readers--
	}
	return nil, wait
}

// take answers cl with what was read, or schedules another look.
func (c *claims) take(cl *claim, values map[string]string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, proc.ErrNoEnviron) && cl.looks < len(looksAgain) {
		cl.due = time.Now().Add(looksAgain[cl.looks])
		cl.looks++
		c.queues[cl.looks] = append(c.queues[cl.looks], cl)
		return
	}
	if proc.Exhausted(err) {
		delete(c.known, cl.of) // the next ask reads it again
	}
	if n, err := strconv.Atoi(values["CRANK_GENERATION"]); err == nil && values["CRANK_NAME"] == c.name {
		cl.generation = n
	}
	cl.listenPID = values["LISTEN_PID"]
	close(cl.answered)
	for _, queue := range c.queues {
		if len(queue) > 0 {
			return
		}
	}
	c.settled()
}

// sweep drops the claims of processes that are gone, once there are twice as many claims as after the last sweep.
func (c *claims) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) < c.many {
		return
	}
	all := slices.Collect(maps.Keys(c.known))
	c.mu.Unlock()
	gone := slices.DeleteFunc(all, func(id identity) bool {
		e, ok := proc.Lookup(id.pid)
		return ok && e.Start == id.start
	})
	c.mu.Lock()
	for _, id := range gone {
		delete(c.known, id)
	}
	c.many = max(manyClaims, 2*len(c.known))
}
