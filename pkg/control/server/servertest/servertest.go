// Package servertest is a supervisor without processes, which a test drives: for tests of the
// server and of its clients.
package servertest

import (
	"context"
	"sync"
	"time"

	"github.com/crankctl/crank/pkg/supervisor"
)

// Fake implements server.Supervisor. Its zero value is not usable; see New. Set the functions
// before the first request.
type Fake struct {
	// OnSwap answers Swap; without it every swap is refused as busy.
	OnSwap func(supervisor.Request) (supervisor.Ticket, error)
	// OnKill answers Kill; without it no generation matches.
	OnKill func(supervisor.KillRequest) ([]supervisor.GenerationStatus, error)
	// OnAbort answers Abort; without it there is no candidate.
	OnAbort func(supervisor.Asker) (int, error)

	mu     sync.Mutex
	status supervisor.Status
	events []supervisor.Event
	more   chan struct{}
	done   chan struct{}
	swaps  int64
}

// New returns a supervisor called name, with generation 3 (pid 42) ready.
func New(name string) *Fake {
	now := time.Now()
	return &Fake{
		more: make(chan struct{}),
		done: make(chan struct{}),
		status: supervisor.Status{
			Name: name, Ready: true, Current: 3, EverCurrent: true, Started: now.Add(-time.Hour),
			Generations: []supervisor.GenerationStatus{{
				Generation: 3, PID: 42, State: supervisor.Ready,
				Started: now.Add(-time.Minute), ReadyAt: now.Add(-59 * time.Second), Since: now.Add(-59 * time.Second),
				Command: supervisor.Command{Argv: []string{"/app", "--v1"}}, Trigger: supervisor.TriggerStart,
			}},
		},
	}
}

// Swap is one accepted swap, which the test carries on.
type Swap struct {
	Ticket supervisor.Ticket
	fake   *Fake
	done   chan supervisor.Outcome
}

// Accept begins a swap to this generation.
func (f *Fake) Accept(generation, pid int) *Swap {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.swaps++
	done := make(chan supervisor.Outcome, 1)
	return &Swap{fake: f, done: done, Ticket: supervisor.Ticket{
		ID: f.swaps, Seq: int64(len(f.events)), Generation: generation, PID: pid, Done: done,
	}}
}

// Event publishes an event of the swap.
func (s *Swap) Event(e supervisor.Event) {
	e.Swap = s.Ticket.ID
	s.fake.Event(e)
}

// End gives the outcome.
func (s *Swap) End(o supervisor.Outcome) { s.done <- o }

// Event publishes an event; Seq and Time are filled in.
func (f *Fake) Event(e supervisor.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Seq, e.Time = int64(len(f.events)+1), time.Now()
	f.events = append(f.events, e)
	close(f.more)
	f.more = make(chan struct{})
}

// Change changes the snapshot, on a copy, and publishes no event.
func (f *Fake) Change(change func(*supervisor.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	status := f.status
	status.Generations = append([]supervisor.GenerationStatus(nil), status.Generations...)
	change(&status)
	f.status = status
}

// End is the end of the supervisor.
func (f *Fake) End() { close(f.done) }

// Swap implements server.Supervisor.
func (f *Fake) Swap(_ context.Context, r supervisor.Request) (supervisor.Ticket, error) {
	if f.OnSwap == nil {
		return supervisor.Ticket{}, &supervisor.Refusal{Code: "busy", Message: "generation 4 is starting, crankctl (uid 0, pid 9) asked for it: wait, or use -force"}
	}
	return f.OnSwap(r)
}

// Abort implements server.Supervisor.
func (f *Fake) Abort(_ context.Context, who supervisor.Asker) (int, error) {
	if f.OnAbort == nil {
		return 0, &supervisor.Refusal{Code: "no-candidate", Message: "nothing is starting"}
	}
	return f.OnAbort(who)
}

// Kill implements server.Supervisor.
func (f *Fake) Kill(_ context.Context, k supervisor.KillRequest) ([]supervisor.GenerationStatus, error) {
	if f.OnKill == nil {
		return nil, nil
	}
	return f.OnKill(k)
}

// Status implements server.Supervisor.
func (f *Fake) Status() *supervisor.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	status := f.status
	return &status
}

// Events implements server.Supervisor. It keeps all events.
func (f *Fake) Events(seq int64) ([]supervisor.Event, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq = min(seq, int64(len(f.events)))
	return append([]supervisor.Event(nil), f.events[seq:]...), f.more
}

// Done implements server.Supervisor.
func (f *Fake) Done() <-chan struct{} { return f.done }
