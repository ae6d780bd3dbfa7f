package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// The app's commands. Only their difference matters.
var (
	v1 = Command{Argv: []string{"/app", "--v1"}}
	v2 = Command{Argv: []string{"/app", "--v2"}}
)

// world is a Supervisor in a bubble, with an operator, a kernel and an app that the test plays.
type world struct {
	t        *testing.T
	s        *Supervisor
	kernel   *kernel
	signals  chan syscall.Signal
	saver    *saver
	prober   *prober
	observed *observed
	setAside []string // why the saved command was set aside
	hungUp   bool     // the answer of HungUp
	code     chan int // Run's
	ended    bool
	exitCode int
	tickets  []Ticket
	asking   []chan swapReply  // requests that are not answered yet
	outcomes map[int64]Outcome // by Ticket.ID
	events   []Event
	stopping bool // the shutdown is among the events
	broken   bool // what all generations share is, by the events
	missed   int  // the generation that missed its watchdog and was not alive again, by the events
}

// start runs a Supervisor until it has nothing to do; it ends with the test. change may be nil.
func start(t *testing.T, cfg Config, first Command, change func(*Options)) *world {
	t.Helper()
	w := &world{
		t: t, kernel: newKernel(), signals: make(chan syscall.Signal, 64), saver: &saver{}, prober: newProber(), observed: &observed{},
		code: make(chan int, 1), outcomes: map[int64]Outcome{},
	}
	o := Options{
		Launcher: w.kernel, Saver: w.saver, Signals: w.signals, Children: w.kernel.ended, Log: logr.Discard(),
		SetAside: func(why string) { w.setAside = append(w.setAside, why) },
		HungUp:   func() bool { return w.hungUp },
		Observer: w.observed,
	}
	if cfg.Ready.Interval > 0 && cfg.Ready.Exec == nil {
		o.Prober = w.prober
	}
	if change != nil {
		change(&o)
	}
	w.s = New(cfg, o)
	w.s.pauses.now = w.kernel.now
	go func() { w.code <- w.s.Run(first) }()
	t.Cleanup(w.finish) // within the bubble
	w.settle()
	return w
}

// settle waits until crank has done all that it can do now, and checks what always holds.
func (w *world) settle() {
	w.t.Helper()
	synctest.Wait()
	select {
	case w.exitCode = <-w.code:
		w.ended = true
	default:
	}
	w.collect()
	w.check()
}

func (w *world) collect() {
	last := int64(0)
	if n := len(w.events); n > 0 {
		last = w.events[n-1].Seq
	}
	events, _ := w.s.Events(last)
	w.events = append(w.events, events...)
	for _, e := range events {
		w.stopping = w.stopping || e.Kind == "shutdown"
		switch {
		case e.Kind == "broken", e.Kind == "mended":
			w.broken = e.Kind == "broken"
		case e.Kind == "missed":
			w.missed = e.Generation
		case e.Kind == "alive", e.To != "" && e.Generation == w.missed:
			w.missed = 0
		}
		if w.stopping && (e.Kind == "started" || e.To == Ready.String()) {
			w.t.Errorf("after the shutdown began: %+v", e)
		}
	}
	w.asking = slices.DeleteFunc(w.asking, func(reply chan swapReply) bool {
		select {
		case r := <-reply:
			w.tickets = append(w.tickets, r.ticket)
			if r.err != nil {
				w.t.Errorf("error for a pending request: %v", r.err)
			}
			return true
		default:
			return false
		}
	})
	for _, t := range w.tickets {
		select {
		case o := <-t.Done:
			if _, twice := w.outcomes[t.ID]; twice {
				w.t.Errorf("swap %d was answered twice", t.ID)
			}
			w.outcomes[t.ID] = o
		default:
		}
	}
}

// check is what holds after every event.
func (w *world) check() {
	w.t.Helper()
	for _, complaint := range append(w.kernel.complaints(), w.observed.complaints()...) {
		w.t.Error(complaint)
	}
	st := w.s.Status()
	current, candidates := 0, 0
	for _, g := range st.Generations {
		switch g.State {
		case Ready:
			current++
		case Starting, Settling:
			candidates++
		case Stopping:
		default:
			w.t.Errorf("generation %d is listed although it is %v", g.Generation, g.State)
		}
	}
	if current > 1 || candidates > 1 {
		w.t.Errorf("%d current ones and %d candidates: %s", current, candidates, w.states())
	}
	if (st.Current != 0) != (current == 1) || (st.Candidate != 0) != (candidates == 1) {
		w.t.Errorf("Status names current %d and candidate %d: %s", st.Current, st.Candidate, w.states())
	}
	slots := map[int]bool{}
	for _, g := range st.Generations {
		if slots[g.Slot] {
			w.t.Errorf("two generations have slot %d: %s", g.Slot, w.states())
		}
		slots[g.Slot] = true
		if c := w.kernel.child(g.Generation); c != nil && c.slot != g.Slot {
			w.t.Errorf("generation %d has slot %d, its process was told %d", g.Generation, g.Slot, c.slot)
		}
	}
	if !slices.IsSortedFunc(st.Generations, func(a, b GenerationStatus) int { return a.Generation - b.Generation }) {
		w.t.Errorf("not in order: %s", w.states())
	}
	if want := current == 1 && !w.saidStopping(st.Current) && st.Current != w.missed && !st.Stopping && !w.broken; st.Ready != want {
		w.t.Errorf("Ready is %v (%s), want %v: %s", st.Ready, st.Reason, want, w.states())
	}
	for _, n := range w.kernel.probed() {
		if st.Candidate != n {
			w.t.Errorf("generation %d is probed: %s", n, w.states())
		}
	}
	if w.ended && len(w.outcomes) != len(w.tickets)+len(w.asking) {
		w.t.Errorf("Run has returned: %d of %d requests were answered", len(w.outcomes), len(w.tickets)+len(w.asking))
	}
}

// saidStopping reports whether generation n said STOPPING=1 when it was current.
func (w *world) saidStopping(n int) bool {
	c := w.kernel.child(n)
	return c != nil && c.saidStopping
}

// states is "1 stopping, 2 ready". A candidate whose check runs is checking, one whose exec is not over is executing.
func (w *world) states() string {
	var all []string
	for _, g := range w.s.Status().Generations {
		state := g.State.String()
		if g.State == Starting && (g.Text == textChecking || g.Text == textExecuting) {
			state = g.Text
		}
		all = append(all, fmt.Sprintf("%d %s", g.Generation, state))
	}
	return strings.Join(all, ", ")
}

// wantStates fails the test unless these generations are there.
func (w *world) wantStates(want string) {
	w.t.Helper()
	if got := w.states(); got != want {
		w.t.Fatalf("generations: %q, want %q", got, want)
	}
}

// wantExit fails the test unless Run has returned code.
func (w *world) wantExit(code int) {
	w.t.Helper()
	if !w.ended || w.exitCode != code {
		w.t.Fatalf("ended %v with %d, want exit code %d: %s", w.ended, w.exitCode, code, w.states())
	}
}

// wantSignals fails the test unless generation n got exactly these signals so far.
func (w *world) wantSignals(n int, want string) {
	w.t.Helper()
	if got := strings.Join(w.kernel.got(n), " "); got != want {
		w.t.Fatalf("generation %d got the signals %q, want %q", n, got, want)
	}
}

// swap asks for a swap; without arguments it is a reload. It returns the refusal's code, and no ticket if the exec hangs.
func (w *world) swap(r Request) (Ticket, string) {
	w.t.Helper()
	if r.Trigger == "" {
		r.Trigger = TriggerReload
	}
	reply := make(chan swapReply, 1)
	go func() {
		t, err := w.s.Swap(context.Background(), r)
		reply <- swapReply{t, err}
	}()
	synctest.Wait()
	var answer swapReply
	select {
	case answer = <-reply:
		if answer.err == nil {
			w.tickets = append(w.tickets, answer.ticket)
		}
	default:
		w.asking = append(w.asking, reply)
	}
	w.settle()
	return answer.ticket, w.refusal(answer.err)
}

// run is swap with a command.
func (w *world) run(c Command) Ticket {
	w.t.Helper()
	t, refused := w.swap(Request{Trigger: TriggerRun, Change: Change(c)})
	if refused != "" {
		w.t.Fatalf("refused: %s", refused)
	}
	return t
}

func (w *world) abort() string {
	w.t.Helper()
	_, err := w.s.Abort(context.Background(), Asker{})
	w.settle()
	return w.refusal(err)
}

func (w *world) refusal(err error) string {
	w.t.Helper()
	var refused *Refusal
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refused):
		return refused.Code
	}
	w.t.Fatalf("not a refusal: %v", err)
	return ""
}

// says is a message of the app.
func (w *world) says(n int, m notify.Message) {
	w.t.Helper()
	if st := w.s.Status(); m.Stopping && n != 0 && st.Current == n {
		w.kernel.child(n).saidStopping = true
	}
	w.s.Notice(n, m)
	w.settle()
}

// ready has generation n pass its check and be ready, whatever that takes.
func (w *world) ready(n int) {
	w.t.Helper()
	if w.kernel.child(n).kind == "check " {
		w.exits(n, 0, 0)
	}
	switch r := w.s.cfg.Ready; {
	case r.Alive > 0:
		w.pass(r.Alive)
	case r.Interval > 0:
		w.probeEnds(n, nil)
	default:
		w.says(n, notify.Message{Ready: true})
	}
}

// probeEnds is the result of the newest probe of generation n, if there was one. A process that has
// ended does not end again, but an answer may come late.
func (w *world) probeEnds(n int, err error) {
	w.t.Helper()
	if w.s.cfg.Ready.Exec != nil {
		code := 0
		if err != nil {
			code = 2
		}
		w.kernel.endProbe(n, proc.Exit{Code: code})
	}
	w.prober.answer(n, err)
	w.settle()
}

// serve makes generation n current, in all of its steps.
func (w *world) serve(n int) {
	w.t.Helper()
	w.ready(n)
	w.pass(w.s.cfg.Settle)
	if st := w.s.Status(); st.Current != n {
		w.t.Fatalf("generation %d does not serve: %s", n, w.states())
	}
}

func (w *world) signal(signals ...syscall.Signal) {
	w.t.Helper()
	for _, sig := range signals {
		w.signals <- sig
	}
	w.settle()
}

// exits ends the main process of generation n and leaves others behind.
func (w *world) exits(n, code, others int) {
	w.t.Helper()
	w.kernel.child(n).setOthers(others)
	w.kernel.end(n, proc.Exit{Code: code})
	w.settle()
}

func (w *world) killed(n int, sig syscall.Signal) {
	w.t.Helper()
	w.kernel.end(n, proc.Exit{Code: -1, Signal: sig})
	w.settle()
}

// othersGo ends what generation n left behind.
func (w *world) othersGo(n int) {
	w.t.Helper()
	w.kernel.child(n).setOthers(0)
	w.pass(lookInterval)
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	time.Sleep(d)
	w.settle()
}

// pause stops crank, as SIGSTOP or a freezer do.
func (w *world) pause(d time.Duration) {
	w.t.Helper()
	w.kernel.stop(d)
	w.pass(d)
}

// outcome returns how t ended.
func (w *world) outcome(t Ticket) Outcome {
	w.t.Helper()
	o, ok := w.outcomes[t.ID]
	if !ok {
		w.t.Fatalf("swap %d has no outcome: %s", t.ID, w.states())
	}
	return o
}

// wantFailed fails the test unless t has failed for a reason that contains want.
func (w *world) wantFailed(t Ticket, want string) {
	w.t.Helper()
	if o := w.outcome(t); o.OK || !strings.Contains(o.Reason, want) {
		w.t.Fatalf("outcome %+v, want a failure because of %q", o, want)
	}
}

// finish stops crank and ends all processes.
func (w *world) finish() {
	w.t.Helper()
	if !w.ended {
		w.signal(syscall.SIGTERM, syscall.SIGTERM)
	}
	for range 10 {
		if w.ended {
			return
		}
		w.kernel.endAll()
		w.pass(lookInterval)
	}
	w.t.Fatalf("crank does not end: %s", w.states())
}

// saver is a disk.
type saver struct {
	mu    sync.Mutex
	saved []string // "--v2 (--v1)": what was saved, and what it replaces
}

func (s *saver) Save(c Command, previous *Command) <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := c.Argv[len(c.Argv)-1]
	if previous != nil {
		text += " (" + previous.Argv[len(previous.Argv)-1] + ")"
	}
	s.saved = append(s.saved, text)
	done := make(chan error)
	close(done)
	return done
}

// kernel is a Launcher whose processes end when the test says so, and by KILL.
type kernel struct {
	ended chan struct{}

	mu        sync.Mutex
	children  []*child
	exits     []proc.Exit
	stopped   time.Duration // how long crank is stopped in the next Reap
	frozen    time.Time     // the time that crank sees while it is stopped; zero: it runs
	fail      error         // of the next exec
	failFork  error         // of the next Launch or Check
	hang      bool          // execs hang
	takes     time.Duration // how long a Launch takes
	takesOnly bool          // crank is not stopped meanwhile: only its loop is blocked
	strays    int
	straySig  []syscall.Signal
	probes    []*child
	failProbe error  // of the exec of the next Probe
	broken    string // what Tend cannot restore
	tended    int
	undying   bool // KILL ends nothing, as in an uninterruptible sleep
	wrong     []string
}

func newKernel() *kernel { return &kernel{ended: make(chan struct{}, 1)} }

func (k *kernel) Launch(id ID, c Command, protect bool) (Child, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.takes; d > 0 {
		if !k.takesOnly {
			k.frozen = time.Now()
		}
		k.mu.Unlock()
		time.Sleep(d)
		k.mu.Lock()
		k.frozen = time.Time{}
	}
	return k.fork(&child{kernel: k, n: id.Generation, slot: id.Slot, pid: 1000 + id.Generation, command: c, protect: protect})
}

// fork creates the main process of a generation. Its exec is over immediately, unless it hangs. mu is held.
func (k *kernel) fork(p *child) (Child, error) {
	if err := k.failFork; err != nil {
		k.failFork = nil
		return nil, err
	}
	k.children = append(k.children, p)
	switch {
	case k.fail != nil:
		p.end(proc.Exit{Code: 127, Failed: k.fail})
		k.fail = nil
	case !k.hang:
		p.executed = true
		k.poke()
	}
	return p, nil
}

// execOver ends the exec of the main process of generation n, if it hangs; nil means success.
func (k *kernel) execOver(n int, err error) {
	c := k.child(n)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case c == nil || c.executed || c.mainEnded:
	case err != nil:
		c.end(proc.Exit{Code: 127, Failed: err})
	default:
		c.executed = true
		k.poke()
	}
}

func (k *kernel) Check(id ID, c Command, argv []string, protect bool) (Child, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fork(&child{kernel: k, n: id.Generation, slot: id.Slot, pid: 2000 + id.Generation, command: c, protect: protect, kind: "check ", argv: argv})
}

func (k *kernel) Probe(id ID, c Command, argv []string, protect bool) (Child, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := &child{kernel: k, n: id.Generation, slot: id.Slot, pid: 5000 + len(k.probes), command: c, protect: protect, kind: "probe ", argv: argv}
	k.probes = append(k.probes, p)
	if err := k.failProbe; err != nil {
		k.failProbe = nil
		p.end(proc.Exit{Code: 127, Failed: err})
	}
	return p, nil
}

// endProbe ends the process of the newest probe of generation n.
func (k *kernel) endProbe(n int, e proc.Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range slices.Backward(k.probes) {
		if p.n == n {
			p.end(e)
			return
		}
	}
}

// probed returns the generations that processes probe.
func (k *kernel) probed() (all []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.probes {
		if !p.mainEnded && !k.undying {
			all = append(all, p.n)
		}
	}
	return all
}

// got returns the signals that the processes of generation n got.
func (k *kernel) got(n int) (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range slices.Concat(k.children, k.probes) {
		if c.n == n {
			all = append(all, c.signals...)
		}
	}
	return all
}

func (k *kernel) Reap() ([]proc.Exit, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.stopped; d > 0 {
		k.stopped = 0
		k.mu.Unlock()
		time.Sleep(d)
		k.mu.Lock()
		k.frozen = time.Time{}
	}
	exits := k.exits
	k.exits = nil
	return exits, false
}

func (k *kernel) Tend() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tended++
	return k.broken
}

func (k *kernel) Strays(sig syscall.Signal) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if sig != 0 {
		k.straySig = append(k.straySig, sig)
	}
	n := k.strays
	if sig == syscall.SIGKILL && !k.undying {
		k.strays = 0
		k.poke()
	}
	return n
}

// poke is SIGCHLD.
func (k *kernel) poke() {
	select {
	case k.ended <- struct{}{}:
	default:
	}
}

// child returns the main process of generation n: its check, and then its app.
func (k *kernel) child(n int) *child {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range slices.Backward(k.children) {
		if c.n == n {
			return c
		}
	}
	return nil
}

// end ends the main process of generation n. One that has ended cannot end again.
func (k *kernel) end(n int, e proc.Exit) {
	c := k.child(n)
	k.mu.Lock()
	defer k.mu.Unlock()
	c.end(e)
}

// executeUnheard ends the exec of the main process of generation n without telling crank.
func (k *kernel) executeUnheard(n int) {
	c := k.child(n)
	k.mu.Lock()
	defer k.mu.Unlock()
	c.executed = true
}

// adopted is the end of a process that belongs to no generation.
func (k *kernel) adopted() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.exits = append(k.exits, proc.Exit{PID: 99})
	k.poke()
}

func (k *kernel) stop(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped, k.frozen = d, time.Now()
	k.poke()
}

// setTakes makes a Launch take d. If only is true, just the loop is blocked meanwhile: crank is not stopped.
func (k *kernel) setTakes(d time.Duration, only bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.takes, k.takesOnly = d, only
}

// freeze stops crank's view of the clock for d, whatever crank does meanwhile; 0 ends that.
func (k *kernel) freeze(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.frozen = time.Time{}
	if d > 0 {
		k.frozen = time.Now()
		time.AfterFunc(d, func() { k.freeze(0) })
	}
}

// now is the clock as crank sees it.
func (k *kernel) now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.frozen.IsZero() {
		return k.frozen
	}
	return time.Now()
}

// failNext makes the next exec fail.
func (k *kernel) failNext(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

// failNextFork makes the next fork fail.
func (k *kernel) failNextFork(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failFork = err
}

// setHang makes execs from now on hang until execOver or a signal.
func (k *kernel) setHang(hang bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hang = hang
}

func (k *kernel) setStrays(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.strays = n
}

func (k *kernel) straySignals() []syscall.Signal {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.straySig)
}

// endAll ends every process.
func (k *kernel) endAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range slices.Concat(k.children, k.probes) {
		c.others = 0
		c.end(proc.Exit{Code: -1, Signal: syscall.SIGKILL})
	}
	k.strays = 0
	k.poke()
}

func (k *kernel) setUndying(undying bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.undying = undying
}

func (k *kernel) complaints() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	wrong := k.wrong
	k.wrong = nil
	return wrong
}

// child is one generation's processes. kernel.mu guards it.
type child struct {
	kernel       *kernel
	n, slot, pid int
	kind         string   // empty: the app
	argv         []string // of a check or a probe
	command      Command
	protect      bool
	others       int
	executed     bool
	signals      []string // "TERM", "group TERM", "others TERM"
	mainEnded    bool     // as the kernel knows
	gone, closed bool     // as crank has been told, and tells
	promoted     bool
	failed       bool  // as crank says
	refuses      error // the answer to every signal
	tails        int
	tailTakes    time.Duration
	saidStopping bool // used by the test's goroutine alone
}

func (c *child) end(e proc.Exit) {
	if c.mainEnded {
		return
	}
	c.mainEnded = true
	c.executed = c.executed || e.Signal == 0 && e.Failed == nil // it ended by itself
	e.PID = c.pid
	c.kernel.exits = append(c.kernel.exits, e)
	c.kernel.poke()
}

func (c *child) PID() int {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	return c.pid
}

func (c *child) Executed() bool {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	return c.executed
}

// endedPID is the pid of a process that has ended.
const endedPID = 1999

// SetMain knows the processes from 2000 on for those of all generations, by turns of ten.
func (c *child) SetMain(pid int) error {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.gone, "was given a main process after Gone")
	if pid == endedPID {
		return fmt.Errorf("cannot adopt process %d: %w", pid, proc.ErrEnded)
	}
	if pid/10 != c.secondPID()/10 {
		return errors.New("not one of its processes")
	}
	c.pid = pid
	return nil
}

// namedEnds makes the launcher report another main process, as after the end of one that the app had named.
func (k *kernel) namedEnds(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.children {
		if c.n == n && c.kind == "" && c.executed && !c.mainEnded {
			c.pid = 3000 + n
		}
	}
	k.poke()
}

// secondPID is another process of the generation than the one that was launched.
func (c *child) secondPID() int { return 2000 + 10*c.n }

func (c *child) Signal(sig syscall.Signal, group bool) error {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.gone, "was signalled after Gone")
	text := strings.TrimPrefix(signalName(sig), "SIG")
	if group {
		text = "group " + text
	}
	if c.refuses != nil {
		return c.refuses
	}
	c.signals = append(c.signals, c.kind+text)
	if sig == syscall.SIGKILL && !c.kernel.undying {
		c.end(proc.Exit{Code: -1, Signal: sig})
	}
	return nil
}

func (c *child) Gone() {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.gone, "is Gone twice")
	c.gone = true
}

func (c *child) Others(sig syscall.Signal) int {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.closed, "was looked for after Close")
	n := c.others
	if sig != 0 && n > 0 {
		c.signals = append(c.signals, c.kind+"others "+strings.TrimPrefix(signalName(sig), "SIG"))
	}
	if sig == syscall.SIGKILL && !c.kernel.undying {
		c.others = 0
	}
	return n
}

func (c *child) Promote() {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.promoted || c.gone, "was promoted twice, or dead")
	c.promoted = true
}

func (c *child) Failed() {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.failed || c.promoted, "has failed twice, or after it was current")
	c.failed = true
}

func (c *child) Tail() Tail {
	c.kernel.mu.Lock()
	takes := c.tailTakes
	c.tails++
	c.mustNot(c.tails > 1, "was asked for its Tail twice")
	c.kernel.mu.Unlock()
	time.Sleep(takes)
	return Tail{Lines: []string{fmt.Sprintf("last words of %d", c.n)}}
}

func (c *child) Close() {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.mustNot(c.closed, "was closed twice")
	c.mustNot(!c.gone, "was closed while it runs")
	c.closed = true
}

func (c *child) mustNot(wrong bool, what string) {
	if wrong {
		c.kernel.wrong = append(c.kernel.wrong, fmt.Sprintf("generation %d %s", c.n, what))
	}
}

func (c *child) setOthers(n int) {
	c.kernel.mu.Lock()
	defer c.kernel.mu.Unlock()
	c.others = n
}

// errFinal is the answer for a candidate without a valid address.
var errFinal = errors.New("no port")

// prober is the network.
type prober struct {
	mu    sync.Mutex
	asked map[int]func(bool, error) // the newest probe of each generation
	count map[int]int
}

func newProber() *prober { return &prober{asked: map[int]func(bool, error){}, count: map[int]int{}} }

func (p *prober) Probe(n, _, _ int, done func(bool, error)) (cancel func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[n] = done
	p.count[n]++
	return func() { go done(false, context.Canceled) }
}

func (p *prober) answer(n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if done := p.asked[n]; done != nil {
		go done(errors.Is(err, errFinal), err)
	}
}

func (p *prober) times(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[n]
}
