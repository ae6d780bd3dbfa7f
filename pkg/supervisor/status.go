package supervisor

import (
	"fmt"
	"time"
)

// Trigger is what began a swap.
type Trigger string

// The triggers, as they appear in the log, the events and the metrics.
const (
	TriggerStart    Trigger = "start"    // the first start
	TriggerHUP      Trigger = "hup"      // SIGHUP
	TriggerRun      Trigger = "run"      // crankctl run
	TriggerReload   Trigger = "reload"   // crankctl reload
	TriggerRollback Trigger = "rollback" // crankctl rollback
	TriggerRestart  Trigger = "restart"  // the current one died and -restart applies
)

// Asker is who asked: the peer of the control socket. The zero value is crank itself or a signal.
type Asker struct {
	UID, PID int
	Name     string
}

// Status is an immutable snapshot of the supervisor.
type Status struct {
	Name        string
	Ready       bool // a generation is current, says nothing else, and crank is not stopping
	Stopping    bool
	Reason      string // why it is not ready
	Current     int    // 0: none
	Candidate   int    // 0: none
	Draining    int    // leaving generations that served, as -max-draining counts them
	EverCurrent bool
	Generations []GenerationStatus // ascending
	LastSwap    *Outcome           // of the newest swap that has ended
	RestartAt   time.Time          // of the next automatic restart; zero: none is planned
	Started     time.Time          // crank itself
	Counters    Counters
}

// GenerationStatus is one generation in a Status.
type GenerationStatus struct {
	Generation int
	Slot       int
	PID        int
	State      State
	Started    time.Time
	ReadyAt    time.Time     // zero until READY
	Since      time.Time     // when State began
	Deadline   time.Time     // of State; zero: none
	Extended   time.Duration // by which EXTEND_TIMEOUT_USEC= has moved Deadline
	Text       string        // the app's own STATUS=; while it starts without one: executing, checking, or what the last probe said
	Command    Command
	Trigger    Trigger
	Asker      Asker
	Others     int  // processes besides the main one, when stopping
	Reloading  bool // it said RELOADING=1
	Missed     bool // it missed its watchdog
}

// Outcome is how a swap ended.
type Outcome struct {
	OK         bool
	Trigger    Trigger
	From       int // the generation that was current when it was asked for; 0: none
	Generation int
	PID        int
	Current    int // the generation that is current now; 0: none
	CurrentPID int
	Took       time.Duration
	Ended      time.Time
	Reason     string // why it failed
	ExitCode   int    // of the candidate; -1 where it has not ended
	Stderr     Tail
	// Saved is closed, or carries one error, once the command is on disk. It is nil where nothing
	// is to be saved.
	Saved <-chan error
}

// Tail is the end of what a generation wrote to stderr.
type Tail struct {
	Lines []string
	Note  string // why there are no lines: "stderr not kept"
}

// Event is one transition, as kept in the history.
type Event struct {
	Seq        int64 // ascending, from 1
	Time       time.Time
	Swap       int64 // the request that it belongs to; 0: none
	Generation int
	PID        int
	Kind       string
	From, To   string
	Cause      string
	Text       string
	Took       time.Duration // how long the state that ended lasted
	Trigger    Trigger
	Asker      Asker
	Stderr     Tail
}

// Request is a swap that somebody asks for.
type Request struct {
	Trigger Trigger
	Change  Change // TriggerRun only
	// IfPID and IfGeneration refuse unless that one is current; *IfGeneration == 0: only if none is.
	IfPID, IfGeneration *int
	Force               bool
	Asker               Asker
}

// Refusal is the error for what was not even tried. Code is one of control's refusal codes.
type Refusal struct {
	Code    string
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// publish makes the snapshot that everybody else reads.
func (s *Supervisor) publish() {
	st := &Status{Name: s.cfg.Name, Stopping: s.shutdown != nil, EverCurrent: s.lastCurrent != nil,
		LastSwap: s.outcome, RestartAt: s.restart.at, Started: s.started, Counters: s.counts}
	if s.current != nil {
		st.Current = s.current.n
	}
	if s.candidate != nil {
		st.Candidate = s.candidate.n
	}
	st.Draining = s.draining()
	for _, g := range s.generations() {
		st.Generations = append(st.Generations, g.snapshot())
	}
	st.Reason = s.whyNotReady()
	st.Ready = st.Reason == ""
	s.status.Store(st)
}

// whyNotReady returns the empty string when crank is ready.
func (s *Supervisor) whyNotReady() string {
	switch {
	case s.shutdown != nil:
		return "crank is shutting down"
	case s.current != nil && s.current.saidStopping:
		return fmt.Sprintf("generation %d said STOPPING=1", s.current.n)
	case s.current != nil && s.current.watchdog.missed:
		return fmt.Sprintf("generation %d missed its watchdog", s.current.n)
	case s.current != nil:
		return s.broken
	case s.candidate != nil:
		return fmt.Sprintf("generation %d is %v", s.candidate.n, s.candidate.state)
	case !s.restart.at.IsZero():
		return fmt.Sprintf("generation %d %v and is started again soon", s.restart.died.n, s.restart.died.exit)
	}
	if s.last == 0 {
		return "nothing was started yet"
	}
	return "no generation runs"
}

// Status returns the newest snapshot. It never blocks.
func (s *Supervisor) Status() *Status { return s.status.Load() }

// Events returns the kept events after seq (at most the last 100), and a channel that is closed
// when there is a newer one. It never blocks.
func (s *Supervisor) Events(seq int64) ([]Event, <-chan struct{}) { return s.history.since(seq) }

// Said returns a channel that is closed when an app has sent STATUS= or EXTEND_TIMEOUT_USEC= and the snapshot has it: these are not events.
// It never blocks.
func (s *Supervisor) Said() <-chan struct{} { return s.said.next() }

// Done is closed when Run has returned.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Stalled returns how long ago the loop last showed that it runs, which it does every second. Time in which the whole process did not run
// does not count. It never blocks.
func (s *Supervisor) Stalled() time.Duration { return s.pauses.stalled() }
