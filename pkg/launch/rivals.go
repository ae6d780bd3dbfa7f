package launch

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crankctl/crank/pkg/listening"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/sockets"
)

// With SO_REUSEPORT the kernel splits the clients of a port between all sockets bound to it. If the app binds its own socket, and
// does not accept on crank's, the clients that the kernel gives to crank's socket are never answered.
//
// So crank looks for such sockets when a generation becomes current, and then at growing intervals. A socket of the current generation is
// a warning. A socket of any other process may be intended (several instances on one port): it is a warning only if clients wait on crank's socket
// and nobody accepts them.

const (
	// unacceptedLimit is how long a queue may go without shrinking before crank assumes that nobody accepts.
	unacceptedLimit = 3 * time.Second
	// firstLook is the interval between the first two looks. Each later one is twice as long.
	firstLook = time.Second
)

// rivals looks for other sockets on the ports of the launcher's sockets. Its fields belong to the supervisor's goroutine, except those below
// looking.
type rivals struct {
	l          *Launcher
	generation int // the current one; 0: none
	next       time.Time
	interval   time.Duration
	queues     map[*sockets.Socket]*queue

	looking atomic.Bool // at most one goroutine at a time
	mu      sync.Mutex
	warned  map[*sockets.Socket]int // the generation of the last warning
}

// queue is what waits on a socket.
type queue struct {
	length int
	since  time.Time // since then it was never empty, and never shrank
}

func newRivals(l *Launcher) *rivals {
	return &rivals{l: l, queues: map[*sockets.Socket]*queue{}, warned: map[*sockets.Socket]int{}}
}

// promoted starts over for the generation that became current.
func (r *rivals) promoted(generation int, now time.Time) {
	r.generation, r.interval, r.next = generation, firstLook, now
	clear(r.queues)
	r.tick(now)
}

// gone is called when the main process of a generation has ended: until another is current, nobody is expected to accept.
func (r *rivals) gone(generation int) {
	if r.generation == generation {
		r.generation = 0
	}
}

// tick starts a look if one is due, or if nobody seems to accept. It does not block.
func (r *rivals) tick(now time.Time) {
	if r.generation == 0 {
		return
	}
	shareable, stuck := r.observe(now)
	if !shareable || len(stuck) == 0 && now.Before(r.next) || !r.looking.CompareAndSwap(false, true) {
		return
	}
	r.next = now.Add(r.interval)
	r.interval *= 2
	generation := r.generation
	r.l.closing.Go(func() {
		defer r.looking.Store(false)
		r.look(generation, stuck)
	})
}

// observe reports whether any socket can have rivals, and returns the lengths of the queues of those on which nobody seems to accept, each
// only once in unacceptedLimit.
func (r *rivals) observe(now time.Time) (shareable bool, stuck map[*sockets.Socket]int) {
	stuck = map[*sockets.Socket]int{}
	for _, s := range r.l.sockets.Sockets() {
		if !s.Shareable() {
			continue
		}
		shareable = true
		length := s.Waiting()
		q := r.queues[s]
		if q == nil || q.length == 0 || length < q.length {
			r.queues[s] = &queue{length, now}
			continue
		}
		q.length = length
		if now.Sub(q.since) >= unacceptedLimit {
			stuck[s] = length
			q.since = now
		}
	}
	return shareable, stuck
}

// look warns of each socket with rivals, once for each generation. It runs in its own goroutine.
func (r *rivals) look(generation int, stuck map[*sockets.Socket]int) {
	found, err := r.l.sockets.Rivals()
	if err != nil {
		r.l.cfg.Log.V(1).Info("search for sockets on shared ports failed", "cause", err.Error())
	}
	found = slices.DeleteFunc(found, func(rival sockets.Rival) bool { return r.hasWarned(rival.Socket, generation) })
	if len(found) == 0 {
		return
	}
	var inodes []uint64
	for _, rival := range found {
		inodes = append(inodes, rival.Other.Inode)
	}
	pids, _ := listening.Holders(inodes) // those that crank may see
	for _, rival := range found {
		if pid := pids[rival.Other.Inode]; pid != 0 && r.l.Owner(pid) == generation {
			r.warn("app bound the shared port itself", rival, generation, pid)
		}
	}
	for _, rival := range found {
		if waiting, nobody := stuck[rival.Socket]; nobody {
			r.warn("clients not accepted; another socket is listening", rival, generation, pids[rival.Other.Inode], "waiting", waiting)
		}
	}
}

func (r *rivals) hasWarned(s *sockets.Socket, generation int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warned[s] >= generation
}

func (r *rivals) warn(message string, rival sockets.Rival, generation, pid int, keysAndValues ...any) {
	if r.hasWarned(rival.Socket, generation) {
		return
	}
	s := rival.Socket
	facts := []any{"generation", generation, "socket", s.Name(), "bound", s.Bound(), "other", rival.Other.Addr.String(), "cause", r.cause(s)}
	if pid != 0 {
		facts = append(facts, "pid", pid)
	}
	logging.Warn(r.l.cfg.Log, message, append(facts, keysAndValues...)...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warned[s] = generation
}

// cause explains why clients are lost, and what to do.
func (r *rivals) cause(s *sockets.Socket) string {
	fd := 3 + slices.Index(r.l.sockets.Sockets(), s)
	return fmt.Sprintf("both sockets share the port (SO_REUSEPORT) and the kernel splits the clients between them: use descriptor %d (LISTEN_FDS), or remove its -bind", fd)
}
