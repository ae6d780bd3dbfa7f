package supervisor

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// State is where a generation is in its life.
type State int

// The states, in the order of a life.
const (
	Starting State = iota + 1
	Settling
	Ready
	Stopping
	Exited
)

var stateNames = [...]string{"new", "starting", "settling", "ready", "stopping", "exited"}

func (s State) String() string { return stateNames[s] }

// legal lists the moves that a generation can make.
var legal = map[State][]State{
	0:        {Starting, Exited},
	Starting: {Settling, Ready, Stopping, Exited},
	Settling: {Ready, Stopping, Exited},
	Ready:    {Stopping, Exited},
	Stopping: {Exited},
}

// generation is one run of the app. Only Run's goroutine touches it.
type generation struct {
	n        int
	slot     int
	cmd      Command
	child    Child // nil where no process could be started
	pid      int
	state    State
	started  time.Time
	readyAt  time.Time
	since    time.Time
	deadline time.Time // when expire is to look at it; zero: never
	text     string    // STATUS=

	executing  bool      // while starting: its process, or its check's, has not executed its program yet
	announced  bool      // watchers were told of it
	checking   bool      // its process is the check's
	proveAt    time.Time // while starting: when it is probed again, or was alive for long enough; zero: never
	probe      *probing  // the one under way
	probeSaid  string    // what the last one has found wrong
	probeWords []string  // and wrote to stderr

	trigger Trigger
	asker   Asker
	swap    *swap // the request it answers; nil once answered
	swapID  int64 // the request that its events belong to: its own, then the one that replaces it

	extended     extension // of deadline
	watchdog     watchdog
	reload       reload
	saidStopping bool       // STOPPING=1 while current
	hung         bool       // crank ends because it missed its watchdog
	wasCurrent   bool       // counts for -max-draining and for crank's exit code
	exit         *proc.Exit // how the main process ended; nil: it runs
	code         int        // what crank would exit with on account of it, where it could not be started
	failure      string     // why it failed as a candidate: one of Reasons, or reasonAborted; empty: it did not
	stopSignal   syscall.Signal
	drainsInFull bool // nothing was wrong with it when it was asked to stop
	killed       bool // the deadline is over, KILL was sent
	others       int  // processes besides the main one, at the last look
}

// swap is a request on its way.
type swap struct {
	id      int64
	seq     int64
	trigger Trigger
	asker   Asker
	from    int
	began   time.Time
	done    chan Outcome // 1-buffered
	// accepted answers the request; nil: it was answered, or there was none.
	accepted func(n, pid int)
}

func (g *generation) id() ID { return ID{g.n, g.slot} }

// live reports whether its main process runs.
func (g *generation) live() bool { return g != nil && g.child != nil && g.exit == nil }

// become is the only way to change a generation's state: it checks the move, keeps time and history, and logs once. A start is
// announced later, by executed. The snapshot is published by the caller's loop turn before anybody is answered.
func (s *Supervisor) become(g *generation, to State, cause string) {
	from := g.state
	if !slices.Contains(legal[from], to) {
		panic(fmt.Sprintf("supervisor: generation %d cannot go from %v to %v (%s)", g.n, from, to, cause))
	}
	now := time.Now()
	took := time.Duration(0)
	if from != 0 {
		took = now.Sub(g.since)
	}
	g.state, g.since, g.deadline, g.extended = to, now, time.Time{}, extension{}
	g.executing = g.executing && to == Starting
	g.watchdog.follow(s, g, from)
	if !g.serves() {
		g.reload = reload{}
	}
	s.stopProbing(g)
	if g.executing {
		return // executed announces it when its program runs
	}
	if !g.announced && to == Exited {
		from, took = 0, 0 // watchers know of no earlier state
	}
	s.announce(g, from, cause, took)
}

// announce tells watchers the state that g is in now, the state before it, and how long that lasted.
func (s *Supervisor) announce(g *generation, from State, cause string, took time.Duration) {
	g.announced = true
	to := g.state
	event := Event{Kind: g.moveKind(from, to, cause), From: from.String(), To: to.String(), Cause: cause, Text: g.text, Took: took}
	if to == Ready && from == Starting {
		event.Took = g.since.Sub(g.started)
	}
	if from == Stopping {
		s.observer.Stopped(took)
	}
	s.record(g, event)
	s.log.V(s.verbosity(g)).Info("generation "+to.String(), "generation", g.n, "pid", g.pid, "from", from.String(),
		"cause", cause, "trigger", string(g.trigger))
}

// causePromoted is why a settling candidate becomes current when the one that serves dies.
const causePromoted = "promoted"

// moveKind names a move for those who watch.
func (g *generation) moveKind(from, to State, cause string) string {
	switch {
	case cause == causePromoted:
		return causePromoted
	case to == Starting && g.checking:
		return textChecking
	case to == Starting:
		return "started"
	case to == Settling, from == Starting && to == Ready:
		return "ready"
	case to == Ready:
		return "settled"
	case to == Stopping:
		return "stopping"
	}
	return "exited"
}

// verbosity keeps crank quiet where it only does what tini does: one app that starts and ends.
func (s *Supervisor) verbosity(g *generation) int {
	if s.cfg.Quiet && g.trigger == TriggerStart {
		return 1
	}
	return 0
}

// snapshot returns g as others see it.
func (g *generation) snapshot() GenerationStatus {
	return GenerationStatus{
		Generation: g.n, Slot: g.slot, PID: g.pid, State: g.state, Started: g.started, ReadyAt: g.readyAt, Since: g.since,
		Deadline: g.deadline, Extended: g.extended.added, Text: g.status(), Command: g.cmd, Trigger: g.trigger, Asker: g.asker, Others: g.others,
		Reloading: g.reload.active, Missed: g.watchdog.missed,
	}
}
