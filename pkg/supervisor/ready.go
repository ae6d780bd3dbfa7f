package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// Readiness is what makes a candidate ready. The first of its fields that is set counts; the zero value, without
// Options.Prober, is READY=1. Where it is something else READY=1 is ignored: who asks for a probe does not trust
// the app's word. That the app says that it has failed counts always.
type Readiness struct {
	None  bool          // its exec succeeded
	Alive time.Duration // it has run for so long; the start limit has no meaning then
	Exec  []string      // this program exits 0; {slot}, {generation} and {pid} are replaced in its words
	// Of the probes: a new one begins so long after the last one began, or when that has ended; and how long one
	// may take. Both are more than 0.
	Interval, Timeout time.Duration
}

// Prober asks a candidate over the network whether it is ready.
type Prober interface {
	// Probe asks a generation, whose main process is pid, and returns immediately. It calls done once, from another
	// goroutine, with nil or the failure, after at most Readiness.Timeout. final: no later probe can succeed, and the candidate
	// has failed. cancel ends the probe early; done is called then too.
	Probe(generation, slot, pid int, done func(final bool, err error)) (cancel func())
}

// probing is one probe of a candidate that is under way, or the process of one that was killed.
type probing struct {
	g        *generation
	began    time.Time
	cancel   func()    // of one over the network; nil: it is a process
	child    Child     // the process
	deadline time.Time // it is killed then; zero: it is no process, or was killed
	late     bool      // it took too long
	ended    bool      // the process is gone
}

// probed is the result of a probe.
type probed struct {
	p     *probing
	err   error // nil: the candidate is ready
	final bool  // no later probe can succeed either
	words Tail  // what the process wrote to stderr
}

// check starts the check of a candidate, the first gate: the app is launched when it has exited with 0.
func (s *Supervisor) check(g *generation) {
	child, err := s.launcher.Check(g.id(), g.cmd, s.cfg.Check, s.current != nil)
	if err != nil {
		s.neverRan(g, reasonCheck, "check: "+err.Error(), err)
		return
	}
	g.checking = true
	s.forked(g, child)
}

// launch starts the app of a candidate.
func (s *Supervisor) launch(g *generation) {
	child, err := s.launcher.Launch(g.id(), g.cmd, s.current != nil)
	if err != nil {
		s.neverRan(g, reasonExec, err.Error(), err)
		return
	}
	s.forked(g, child)
}

// neverRan is a candidate that could not be executed.
func (s *Supervisor) neverRan(g *generation, reason, cause string, err error) {
	g.code = startErrorCode(err)
	s.candidate = g
	s.become(g, Exited, cause)
	s.failed(g, reason, cause)
}

// forked starts the time that the candidate, or its check, has. Its process exists, and may hang in its exec; executed continues.
func (s *Supervisor) forked(g *generation, child Child) {
	g.child, g.pid, g.executing = child, child.PID(), true
	s.candidate = g
	if g.state == Starting { // its check is over
		g.since = time.Now()
	} else {
		s.become(g, Starting, describe(g.trigger, g.asker))
	}
	g.started = g.since
	if s.tendAt.IsZero() {
		s.tendAt = g.since.Add(tendInterval)
	}
	g.deadline = time.Time{}
	if limit := s.startLimit(g); limit > 0 {
		g.deadline = time.Now().Add(limit)
	}
}

// lookAtExec continues with g if its exec has succeeded. A failed exec is reported by the end of the process.
func (s *Supervisor) lookAtExec(g *generation) {
	if g != nil && g.executing && g.child.Executed() {
		s.executed(g)
	}
}

// executed is called when the program of a candidate, or its check, runs.
func (s *Supervisor) executed(g *generation) {
	g.executing = false
	if g.announced { // its check is over
		s.record(g, Event{Kind: "started", Cause: "checked"})
		s.log.V(s.verbosity(g)).Info("generation checked and started", "generation", g.n, "pid", g.pid)
	} else {
		s.announce(g, 0, describe(g.trigger, g.asker), 0)
	}
	s.accepted(g, g.pid)
	if g.checking {
		return
	}
	if s.current == nil {
		s.deliverHeld(g)
	}
	s.awaitReady(g)
}

// notExecuted is the end of a process that could not execute the candidate's program, or its check.
func (s *Supervisor) notExecuted(g *generation, err error) {
	reason, cause := reasonExec, err.Error()
	if g.checking {
		reason, cause = reasonCheck, "check: "+cause
	}
	g.child.Gone()
	g.child.Close()
	g.child, g.pid = nil, 0
	s.neverRan(g, reason, cause, err)
}

// startLimit is how long the candidate, or its check, may take; 0: forever. One that only has to stay alive has a limit for its exec only.
func (s *Supervisor) startLimit(g *generation) time.Duration {
	if !g.checking && !g.executing && s.aliveMeansReady() {
		return 0
	}
	return orDefault(g.cmd.Start, s.cfg.Start)
}

func (s *Supervisor) aliveMeansReady() bool { return !s.cfg.Ready.None && s.cfg.Ready.Alive > 0 }

// checkPassed is the end of a check with exit code 0. What it has left behind counts as the candidate's.
func (s *Supervisor) checkPassed(g *generation) {
	g.child.Gone()
	g.child.Close()
	g.checking, g.child, g.pid = false, nil, 0
	s.launch(g)
}

// awaitReady starts to find out whether the candidate, which was just executed, is ready.
func (s *Supervisor) awaitReady(g *generation) {
	switch r := s.cfg.Ready; {
	case r.None:
		s.becameReady(g)
	case r.Alive > 0:
		g.deadline, g.proveAt = time.Time{}, time.Now().Add(r.Alive)
	case r.Exec != nil || s.prober != nil:
		s.probe(g)
	}
}

// takesReady reports whether READY=1 makes the candidate ready.
func (s *Supervisor) takesReady(g *generation) bool {
	r := s.cfg.Ready
	return !g.checking && !r.None && r.Alive == 0 && r.Exec == nil && s.prober == nil
}

// onProve is the time for the candidate's next step: it was alive for long enough, or is probed again.
func (s *Supervisor) onProve(g *generation) {
	g.proveAt = time.Time{}
	if s.aliveMeansReady() {
		s.becameReady(g)
		return
	}
	s.probe(g)
}

// probe begins a probe of the candidate.
func (s *Supervisor) probe(g *generation) {
	p := &probing{g: g, began: time.Now()}
	g.probe = p
	if s.cfg.Ready.Exec == nil {
		p.cancel = s.prober.Probe(g.n, g.slot, g.pid, func(final bool, err error) { s.sendProbed(probed{p: p, err: err, final: final}) })
		return
	}
	child, err := s.launcher.Probe(g.id(), g.cmd, g.replaced(s.cfg.Ready.Exec), s.current != nil)
	if err != nil {
		s.onProbed(probed{p: p, err: err})
		return
	}
	p.child, p.deadline = child, p.began.Add(s.cfg.Ready.Timeout)
	s.probes = append(s.probes, p)
}

// replaced returns the words with {slot}, {generation} and {pid} replaced.
func (g *generation) replaced(words []string) []string {
	r := strings.NewReplacer("{slot}", strconv.Itoa(g.slot), "{generation}", strconv.Itoa(g.n), "{pid}", strconv.Itoa(g.pid))
	all := make([]string, len(words))
	for i, word := range words {
		all[i] = r.Replace(word)
	}
	return all
}

// sendProbed brings a result to the loop.
func (s *Supervisor) sendProbed(r probed) {
	select {
	case s.results <- r:
	case <-s.done:
	}
}

// onProbed is the result of a probe. That of one that was cancelled meanwhile has no effect.
func (s *Supervisor) onProbed(r probed) {
	g := r.p.g
	if g.probe != r.p {
		return
	}
	g.probe = nil
	switch {
	case r.err == nil:
		s.becameReady(g)
		return
	case r.final:
		s.failCandidate(reasonProbe, r.err.Error())
		return
	}
	g.probeSaid, g.probeWords = r.err.Error(), r.words.Lines
	g.proveAt = r.p.began.Add(s.cfg.Ready.Interval)
	s.log.V(1).Info("not ready yet", "generation", g.n, "pid", g.pid, "cause", g.probeSaid)
}

// stopProbing ends what was begun to find out whether g is ready.
func (s *Supervisor) stopProbing(g *generation) {
	g.proveAt = time.Time{}
	p := g.probe
	g.probe = nil
	switch {
	case p == nil, p.ended:
	case p.cancel != nil:
		p.cancel()
	default:
		s.killProbe(p)
	}
}

// killProbe ends the process of a probe; its end is still to come.
func (s *Supervisor) killProbe(p *probing) {
	p.deadline = time.Time{}
	if err := p.child.Signal(syscall.SIGKILL, true); err != nil {
		s.log.Error(err, "cannot kill a probe", "generation", p.g.n, "pid", p.child.PID())
	}
}

// expireProbes kills the probes that take too long.
func (s *Supervisor) expireProbes(due func(time.Time) bool) {
	for _, p := range s.probes {
		if due(p.deadline) {
			p.late = true
			s.killProbe(p)
		}
	}
}

// probeEnded is the end of a process; it reports whether that was a probe's.
func (s *Supervisor) probeEnded(e proc.Exit) bool {
	i := slices.IndexFunc(s.probes, func(p *probing) bool { return p.child.PID() == e.PID })
	if i < 0 {
		return false
	}
	p := s.probes[i]
	s.probes = slices.Delete(s.probes, i, i+1)
	p.ended = true
	p.child.Gone()
	p.child.Close()
	switch {
	case p.g.probe != p: // it was killed, since nobody wants to know any more
	case e.Failed != nil:
		s.onProbed(probed{p: p, err: e.Failed})
	case e.Status() == 0 && !p.late:
		s.onProbed(probed{p: p})
	default:
		go func() { // ends with the loop at the latest
			words := p.child.Tail()
			s.sendProbed(probed{p: p, err: s.probeError(p, e, words), words: words})
		}()
	}
	return true
}

// probeError says how the process of a probe ended, with the last thing that it said.
func (s *Supervisor) probeError(p *probing, e proc.Exit, words Tail) error {
	said := e.String()
	if p.late {
		said = fmt.Sprintf("took longer than %v (-ready-timeout)", s.cfg.Ready.Timeout)
	}
	last := ""
	if n := len(words.Lines); n > 0 {
		last = ": " + words.Lines[n-1]
	}
	return fmt.Errorf("exec:%s %s%s", s.cfg.Ready.Exec[0], said, last)
}

// notInTime says what a candidate has not done, and what its last probe said.
func (s *Supervisor) notInTime(g *generation) string {
	limit := orDefault(g.cmd.Start, s.cfg.Start) + g.extended.added
	switch {
	case g.executing:
		return fmt.Sprintf("not executed in time (%v): the exec hangs, for example on a lease (fcntl(2)) or an unresponsive file system", limit)
	case g.checking:
		return fmt.Sprintf("check not over in time (%v)", limit)
	case g.probeSaid != "":
		return fmt.Sprintf("not ready in time (%v): %s", limit, g.probeSaid)
	}
	return fmt.Sprintf("not ready in time (%v)", limit)
}

// probeTail adds what the last probe wrote to what a candidate wrote that was not ready in time.
func probeTail(t Tail, words []string) Tail {
	for _, line := range words {
		t.Lines = append(t.Lines, "probe: "+line)
	}
	return t
}

// The status of a generation whose check runs, and of one whose program, or check, is not executed yet.
const (
	textChecking  = "checking"
	textExecuting = "executing"
)

// status is what those who look are told of g: what it said itself, or how far it is.
func (g *generation) status() string {
	switch {
	case g.state != Starting:
		return g.text
	case g.executing:
		return textExecuting
	case g.checking:
		return textChecking
	}
	return cmp.Or(g.text, g.probeSaid)
}

// diedStarting says why the end of its process is the failure of a candidate.
func (g *generation) diedStarting(e proc.Exit) (reason, cause string) {
	switch {
	case g.checking:
		return reasonCheck, "check " + e.String()
	case g.executing: // only a signal can end it
		return reasonSignal, e.String() + " before its program was executed"
	case g.state == Settling:
		return reasonSettle, e.String() + " while settling"
	case e.Signal != 0:
		return reasonSignal, e.String() + " before ready"
	}
	return reasonExit, e.String() + " before ready"
}
