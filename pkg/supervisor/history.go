package supervisor

import (
	"sync"
	"time"
)

// historySize is how many transitions are kept.
const historySize = 100

// history keeps the last events for any number of readers, none of which the writer waits for.
type history struct {
	mu     sync.Mutex // held for copies only
	seq    int64
	events []Event
	newer  chan struct{} // closed and replaced at each event
}

func newHistory() *history { return &history{newer: make(chan struct{})} }

func (h *history) add(e Event) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	e.Seq = h.seq
	if len(h.events) == historySize {
		copy(h.events, h.events[1:])
		h.events[historySize-1] = e
	} else {
		h.events = append(h.events, e)
	}
	close(h.newer)
	h.newer = make(chan struct{})
	return h.seq
}

// last returns the newest event's number.
func (h *history) last() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seq
}

func (h *history) since(seq int64) ([]Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := len(h.events)
	for first > 0 && h.events[first-1].Seq > seq {
		first--
	}
	return append([]Event(nil), h.events[first:]...), h.newer
}

// bell wakes any number of waiting goroutines.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // closed and replaced when it rings
}

func newBell() *bell { return &bell{rung: make(chan struct{})} }

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.rung)
	b.rung = make(chan struct{})
}

func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rung
}

// record adds an event of g to the history.
func (s *Supervisor) record(g *generation, e Event) {
	e.Time = time.Now()
	if g != nil {
		e.Generation, e.PID = g.n, g.pid
		e.Trigger = g.trigger
		e.Swap = g.swapID
		if e.Asker == (Asker{}) {
			e.Asker = g.asker
		}
	}
	s.pending = append(s.pending, e)
}
