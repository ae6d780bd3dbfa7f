package supervisor

import (
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/proc"
)

// ID says which generation a process is for.
type ID struct {
	Generation int // from 1, never used again
	Slot       int // the lowest number from 0 that no other living generation has: used again when this one and its leftover processes are gone
}

// Launcher makes and knows processes. Its methods are called by Run's goroutine alone.
type Launcher interface {
	// Launch starts a generation. It returns when its process exists, or with the reason why it does not. Whether the process executes the
	// program is known later, after Children delivers: from Child.Executed, or from the Failed of its end, which Reap returns.
	// protect is true where a generation serves that must not suffer from this one.
	Launch(id ID, c Command, protect bool) (Child, error)
	// Check starts argv, which has to exit 0 before the generation is launched. It counts as that generation's process.
	Check(id ID, c Command, argv []string, protect bool) (Child, error)
	// Probe starts argv, whose exit status decides whether the generation is ready. Others does not count it.
	Probe(id ID, c Command, argv []string, protect bool) (Child, error)
	// Reap takes the status of every process that has ended. none: there are no children left. It is called when Children delivers, and
	// at each tick.
	Reap() (exits []proc.Exit, none bool)
	// Tend restores what all generations share and one of them may have damaged. It returns what it could not restore, as the reason why
	// crank is not ready, without paths; empty: nothing. It is called at each tick unless crank is stopping, when a generation has ended,
	// become current or failed as a candidate, and more often while there is a candidate.
	Tend() (broken string)
	// Strays signals (unless sig is 0) the adopted processes that belong to no generation in use,
	// and counts them.
	Strays(sig syscall.Signal) int
}

// Child is the process of one generation, and all that belongs to it.
type Child interface {
	// PID returns the main process. If the one named by SetMain ends while the launched one runs, it is the launched one again from the next Reap on.
	PID() int
	// Executed reports whether it runs its program, or ran it. It does not block.
	Executed() bool
	// SetMain makes pid the main process, as the app has requested. The error says why it cannot be: it has ended (proc.ErrEnded),
	// or is not one of the generation's.
	SetMain(pid int) error
	// Signal signals the main process; with group, its process group.
	Signal(sig syscall.Signal, group bool) error
	// Gone tells that the main process was reaped.
	Gone()
	// Others signals (unless sig is 0) the generation's processes besides the main one, and counts them.
	Others(sig syscall.Signal) int
	// Promote is called when the generation becomes current.
	Promote()
	// Failed is called when the generation has failed as a candidate: it undoes what the candidate changed in what all generations share.
	// The generation may still run, or be closed.
	Failed()
	// Tail returns the end of its stderr. It is called once, from a goroutine of its own, when the
	// generation has failed: its main process may still run, and Close may have been called. It may block
	// for a moment to let the last bytes arrive.
	Tail() Tail
	// Close releases what crank holds for it. It does not block, and is called once nothing of it is left.
	Close()
}

// Saver puts what became current on disk. Save does not block; the channel gets one error or is closed.
type Saver interface {
	Save(command Command, previous *Command) <-chan error
}

// HUP is what SIGHUP means.
type HUP int

// The values of -hup.
const (
	HUPSwap HUP = iota
	HUPForward
	HUPIgnore
)

// Restart is what happens when the current generation ends by itself.
type Restart int

// The values of -restart.
const (
	RestartNever Restart = iota
	RestartOnFailure
	RestartAlways
)

// Config is how the supervisor behaves. Durations are as in the flags of the same name.
type Config struct {
	Name        string
	Start, Stop time.Duration // 0 in Start: no limit
	MaxExtend   time.Duration // what EXTEND_TIMEOUT_USEC can add to each of them
	Settle      time.Duration
	DrainDelay  time.Duration
	Check       []string // has to exit 0 before a candidate is launched; nil: nothing has
	Ready       Readiness
	StopSignal  syscall.Signal   // 0: the one that crank was stopped with, TERM for swaps
	StopOn      []syscall.Signal // what stops crank, never HUP; nil: TERM, INT and QUIT
	Group       bool             // signals go to the process group
	HUP         HUP
	Restart     Restart
	OKCodes     map[int]bool // exit codes reported as 0
	MaxDraining int          // 0: no limit
	Quiet       bool         // say nothing of an uneventful first generation
	Terminal    bool         // on a terminal a third INT kills

	Watchdog        Watchdog
	WatchdogTimeout time.Duration // of generations that say no WATCHDOG_USEC; 0: none
}

// Options is what New needs besides Config.
type Options struct {
	Launcher Launcher
	Saver    Saver                 // nil: nothing is saved
	Prober   Prober                // nil: Config.Ready says what makes a candidate ready
	Signals  <-chan syscall.Signal // to crank, already rewritten; without CHLD
	Children <-chan struct{}       // something happened to a child: it has ended (SIGCHLD), or its exec is over
	Log      logr.Logger
	// Fallback is started where the first command, a saved one, fails. SetAside is called then.
	Fallback *Command
	SetAside func(why string)
	Previous *Command     // for the first rollback
	Room     func() error // why a second generation does not fit into memory; may be nil
	HungUp   func() bool  // whether a SIGHUP means that the controlling terminal is gone; may be nil
	Observer Observer     // may be nil
	// Begun is called once, when the first command has been started, or there was none: for what is not to hold that up.
	// It may be nil.
	Begun func()
}

const (
	tick       = time.Second
	maxSignals = 64              // handled in one turn before process exits
	gapLimit   = 3 * time.Second // if no part of crank runs for longer, it was stopped

	failedGrace    = 5 * time.Second       // a failed candidate is killed after at most this
	shutdownGrace  = time.Second           // a starting one at shutdown
	restartGrace   = time.Second           // what a dead generation left behind, before a restart
	killGrace      = 2 * time.Second       // for the kernel to end what was killed
	lookInterval   = 50 * time.Millisecond // between looks for processes left behind
	lookSoon       = 5 * time.Millisecond  // after one of them may have ended
	backoffFirst   = 100 * time.Millisecond
	backoffMax     = 30 * time.Second
	backoffForgive = 60 * time.Second // being current for so long resets the backoff
)

// Supervisor runs the app. Its exported methods may be called from any goroutine; all of the state
// below them belongs to Run's.
type Supervisor struct {
	cfg      Config
	launcher Launcher
	saver    Saver
	log      logr.Logger
	signals  <-chan syscall.Signal
	children <-chan struct{}
	setAside func(string)
	hungUp   func() bool
	room     func() error
	observer Observer
	begun    func()
	prober   Prober

	status  atomic.Pointer[Status]
	pauses  pauses
	history *history
	said    *bell // rings when the snapshot has something new from an app that is not an event
	done    chan struct{}

	// One channel for each kind of message.
	swaps   chan swapCall
	aborts  chan abortCall
	kills   chan killCall
	notices chan noticeCall
	reports chan report
	results chan probed

	candidate *generation   // starting or settling; at most one
	current   *generation   // ready; at most one
	leaving   []*generation // stopping
	probes    []*probing    // processes that run, or were killed

	started     time.Time
	last        int         // the newest generation's number
	lastSwap    int64       // the newest request's number
	newest      *generation // the newest of all
	lastCurrent *generation // the newest that was ever current
	cmd         Command     // what a reload starts: what last became current, or was first asked for
	good        Command     // what last became current
	previous    *Command    // the last different good one
	fallback    *Command
	hupPending  bool
	held        []syscall.Signal // what arrived before there was anything to forward it to
	restart     restart
	shutdown    *shutdown
	lookAt      time.Time // when to look again for processes left behind
	tendAt      time.Time // when to restore what all generations share, before the next tick
	broken      string    // what tend could not restore; empty: nothing
	gaps        gaps      // by which the deadlines were moved
	reporting   int       // reports that are on their way
	heard       bool      // said has to ring at the end of this turn

	pending []Event  // to be published at the end of this turn
	answers []func() // to be given after that; none of them blocks
	outcome *Outcome // of the newest swap that has ended
	counts  Counters
}

// Counters count what would otherwise pass unseen.
type Counters struct {
	Reaped         int64 // processes whose status was taken, including adopted ones, except those that could not be executed
	ClockGaps      int64 // pauses of crank that were not charged to any deadline
	DroppedHUPs    int64 // HUPs while stopping
	IgnoredNotices int64 // messages that had no meaning in the state they came in
	Restarts       int64 // automatic ones, by -restart
}

// New returns a Supervisor that does nothing yet.
func New(cfg Config, o Options) *Supervisor {
	s := &Supervisor{
		cfg: cfg, launcher: o.Launcher, saver: o.Saver, log: o.Log, signals: o.Signals, children: o.Children,
		setAside: o.SetAside, hungUp: o.HungUp, room: o.Room, observer: o.Observer, prober: o.Prober, begun: o.Begun, fallback: o.Fallback, previous: o.Previous,
		history: newHistory(), said: newBell(), done: make(chan struct{}), started: time.Now(),
		swaps: make(chan swapCall), aborts: make(chan abortCall), kills: make(chan killCall),
		notices: make(chan noticeCall), reports: make(chan report), results: make(chan probed), pauses: pauses{now: time.Now},
	}
	if s.cfg.StopOn == nil {
		s.cfg.StopOn = defaultStopOn
	}
	if s.observer == nil {
		s.observer = nobody{}
	}
	s.pauses.start()
	s.publish()
	return s
}

// Run starts first (nothing, where it has no Argv: then it waits for Swap) and returns crank's exit
// code when all is over. It must be called once.
func (s *Supervisor) Run(first Command) int {
	defer close(s.done)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()

	s.pauses.start()
	defer s.pauses.watch()()
	s.onChildren() // PID 1 may have inherited some
	if !first.IsZero() {
		s.cmd = first
		s.begin(first, &swap{trigger: TriggerStart})
	}
	if s.begun != nil {
		s.begun()
	}
	for {
		s.advance()
		s.tend()
		s.flush()
		if s.over() {
			return s.exitCode()
		}
		timer.Reset(s.untilDeadline())
		act := s.next(ticker.C, timer.C)
		// A pause of the whole process fires every timer at once, and lets in what came meanwhile. Before
		// any of that the old deadlines are moved, so that no new one is.
		s.onTick()
		// Events from an app, or for it, can arrive before the news of its exec.
		s.lookAtExec(s.candidate)
		act()
	}
}

// next waits for something to do.
func (s *Supervisor) next(ticks, deadlines <-chan time.Time) func() {
	select {
	case <-ticks:
		return s.onTicked
	case <-deadlines:
		return func() { s.expire(time.Now()) }
	case sig := <-s.signals:
		return func() { s.onSignal(sig) }
	case <-s.children:
		return s.afterSignals
	case c := <-s.notices:
		return func() { s.onNotice(c) }
	case c := <-s.swaps:
		return func() { s.onSwap(c) }
	case c := <-s.aborts:
		return func() { s.onAbort(c) }
	case c := <-s.kills:
		return func() { s.onKill(c) }
	case r := <-s.reports:
		return func() { s.onReport(r) }
	case r := <-s.results:
		return func() { s.onProbed(r) }
	}
}

// afterSignals handles pending signals, then process exits. systemd's KillMode=control-group sends TERM to crank and
// to the app: the app's exit is then part of a stop, not a failed start.
func (s *Supervisor) afterSignals() {
	s.takeSignals()
	s.onChildren()
}

// takeSignals handles pending signals, but not so many that everything else has to wait.
func (s *Supervisor) takeSignals() {
	for range maxSignals {
		select {
		case sig := <-s.signals:
			s.onSignal(sig)
		default:
			return
		}
	}
}

// onTicked is for what nobody tells: a main process that has another parent ends without a SIGCHLD.
func (s *Supervisor) onTicked() {
	s.afterSignals()
	s.tendSoon()
}

// flush publishes, then tells: whoever is told "ready" finds it so.
func (s *Supervisor) flush() {
	s.publish()
	if s.heard {
		s.heard = false
		s.said.ring()
	}
	for _, e := range s.pending {
		s.history.add(e)
	}
	for _, answer := range s.answers {
		answer()
	}
	s.pending, s.answers = nil, nil
}

// onTick moves every deadline by the time in which crank did not run. A blocked loop moves none: otherwise deadlines might never pass.
func (s *Supervisor) onTick() {
	was := s.gaps
	s.gaps = s.pauses.tick()
	if s.gaps == was {
		return
	}
	pause := s.gaps.lost - was.lost
	s.counts.ClockGaps = s.gaps.count
	s.log.Info("crank was paused: no deadline is charged for it", "seconds", pause.Seconds())
	for _, d := range append(s.deadlines(), &s.restart.giveUp) {
		if !d.IsZero() {
			*d = d.Add(pause)
		}
	}
}

// deadlines returns every point in time that expire acts upon.
func (s *Supervisor) deadlines() []*time.Time {
	all := []*time.Time{&s.restart.at, &s.lookAt, &s.tendAt}
	for _, g := range s.generations() {
		all = append(all, &g.deadline, &g.proveAt, &g.watchdog.due, &g.reload.deadline)
	}
	for _, p := range s.probes {
		all = append(all, &p.deadline)
	}
	if s.shutdown != nil {
		all = append(all, &s.shutdown.delayUntil, &s.shutdown.deadline)
	}
	return all
}

// untilDeadline returns the time until the next one.
func (s *Supervisor) untilDeadline() time.Duration {
	next := time.Duration(1<<63 - 1)
	for _, d := range s.deadlines() {
		if !d.IsZero() {
			next = min(next, time.Until(*d))
		}
	}
	return max(next, 0)
}

// generations returns all that are not exited, in the order of their numbers.
func (s *Supervisor) generations() []*generation {
	all := append([]*generation(nil), s.leaving...)
	for _, g := range []*generation{s.current, s.candidate} {
		if g != nil {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, byNumber)
	return all
}

func byNumber(a, b *generation) int { return a.n - b.n }

// freeSlot returns the lowest number from 0 that no living generation has.
func (s *Supervisor) freeSlot() int {
	all := s.generations()
	for slot := 0; ; slot++ {
		if !slices.ContainsFunc(all, func(g *generation) bool { return g.slot == slot }) {
			return slot
		}
	}
}
