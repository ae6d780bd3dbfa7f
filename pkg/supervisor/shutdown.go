package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// shutdown is crank on its way out.
type shutdown struct {
	signal     syscall.Signal // what crank was stopped with; 0: its app is gone
	cause      string         // the same in words
	interrupts int            // how many INT there were
	delayUntil time.Time      // the end of -drain-delay; zero: over
	limit      time.Duration  // the largest -stop
	deadline   time.Time      // all is killed then
	straysTold bool
	killed     bool
	left       bool // nothing is left to wait for
}

// beginShutdown is the begin of the end: not ready at once, no more swaps.
func (s *Supervisor) beginShutdown(signal syscall.Signal, cause string) {
	if s.shutdown != nil {
		return
	}
	sd := &shutdown{signal: signal, cause: cause}
	s.shutdown = sd
	for _, g := range s.generations() {
		sd.limit = max(sd.limit, s.stopLimit(g))
	}
	if sd.limit == 0 {
		sd.limit = s.cfg.Stop // for adopted processes
	}
	s.record(nil, Event{Kind: "shutdown", Cause: cause})
	s.log.V(s.quiet(1)).Info("crank stops", "cause", cause)
	if s.hupPending {
		s.hupPending = false
		s.counts.DroppedHUPs++
	}
	s.restart.at = time.Time{}
	if s.candidate != nil && s.candidate.state == Starting {
		s.failCandidate(reasonShutdown, "crank is shutting down")
	}
	if signal != 0 && s.current != nil && s.cfg.DrainDelay > 0 {
		now := time.Now()
		sd.delayUntil = now.Add(s.cfg.DrainDelay)
		sd.deadline = sd.delayUntil.Add(sd.limit)
		if s.candidate != nil {
			s.candidate.deadline = time.Time{} // it serves on, like the current one
		}
		return
	}
	s.stopAll()
}

// quiet returns level where crank has nothing to say of what it does as tini would.
func (s *Supervisor) quiet(level int) int {
	if s.cfg.Quiet {
		return level
	}
	return 0
}

// stopAll tells every generation that serves to drain. Leaving ones were told before.
func (s *Supervisor) stopAll() {
	sd := s.shutdown
	sd.delayUntil = time.Time{}
	sd.deadline = time.Now().Add(sd.limit)
	if s.candidate != nil {
		s.failCandidate(reasonShutdown, "crank is shutting down")
	}
	if g := s.current; g != nil {
		s.current = nil
		s.leave(g, s.shutdownSignal(), s.stopLimit(g), "shutdown")
	}
	for _, g := range s.leaving {
		if !g.deadline.IsZero() && g.deadline.After(sd.deadline) {
			g.deadline, g.extended = sd.deadline, extension{}
		}
	}
}

// withinShutdown caps a time limit by what the shutdown leaves.
func (s *Supervisor) withinShutdown(limit time.Duration) time.Duration {
	if s.shutdown != nil && !s.shutdown.deadline.IsZero() {
		return min(limit, time.Until(s.shutdown.deadline))
	}
	return limit
}

// killAll is the deadline of the shutdown, and then the end of the time that the kernel had.
func (s *Supervisor) killAll() {
	sd := s.shutdown
	if sd.killed {
		s.log.Info("some processes cannot be ended: crank leaves without them", "generations", len(s.generations()))
		sd.left, sd.deadline = true, time.Time{}
		return
	}
	sd.killed = true
	for _, g := range s.generations() {
		if !g.killed {
			s.kill(g, phaseShutdown, "crank's own deadline is over")
		}
	}
	sd.deadline = time.Now().Add(killGrace)
	if sd.straysTold {
		s.launcher.Strays(syscall.SIGKILL)
	}
}

// seeOffStrays asks the adopted processes to stop once no generation is left.
func (s *Supervisor) seeOffStrays() {
	sd := s.shutdown
	signal := syscall.Signal(0)
	if !sd.straysTold {
		signal = syscall.SIGTERM
	}
	if sd.killed {
		signal = syscall.SIGKILL
	}
	sd.straysTold = true
	if s.launcher.Strays(signal) == 0 {
		sd.left = true
		return
	}
	s.lookWithin(lookInterval)
}

// over reports whether Run is to return.
func (s *Supervisor) over() bool {
	return s.shutdown != nil && s.shutdown.left && s.reporting == 0
}

// decisive returns the generation that crank's exit code is of: the newest one that was ever current,
// else the newest of all; nil where there was none.
func (s *Supervisor) decisive() *generation {
	if s.lastCurrent != nil {
		return s.lastCurrent
	}
	return s.newest
}

func (s *Supervisor) exitCode() int {
	g := s.decisive()
	if g == nil {
		return 0
	}
	return s.codeOf(g)
}

// Ending says in a line why Run has returned, and what the app wrote last to stderr. It is for whoever
// called Run, afterwards.
func (s *Supervisor) Ending() (reason string, tail Tail) {
	g := s.decisive()
	if g == nil {
		return s.shutdown.cause + ": nothing was running", Tail{}
	}
	reason = fmt.Sprintf("%s (generation %d, pid %d)", s.shutdown.cause, g.n, g.pid)
	if g.exit != nil && !strings.Contains(s.shutdown.cause, g.exit.String()) {
		reason = fmt.Sprintf("%s: generation %d (pid %d) %v", s.shutdown.cause, g.n, g.pid, g.exit)
	}
	if g.child != nil {
		tail = g.child.Tail()
	}
	return reason, tail
}

// codeOf returns the exit code that crank has on account of g.
func (s *Supervisor) codeOf(g *generation) int {
	code := g.code
	switch {
	case g.failure == reasonTimeout && g.trigger == TriggerStart:
		return 124
	case g.exit != nil:
		code = g.exit.Status()
	case g.child != nil:
		code = 128 + int(syscall.SIGKILL) // it was killed, and the kernel has not said so yet
	}
	switch {
	case code != 0 && !s.cfg.OKCodes[code]:
		return code
	case g.hung || g.failedToStart():
		return 1 // never a success, whatever its exit code: a restart policy of on-failure must act
	}
	return 0
}

// failedToStart reports whether g was crank's first start and ended before it was ready, unasked, or sent that it had failed.
func (g *generation) failedToStart() bool {
	if g.failure == reasonReported {
		return true
	}
	return g.failure != "" && g.trigger == TriggerStart && !slices.Contains(unblamed, g.failure)
}

// onStop handles a signal of StopOn, or a hang-up of the terminal.
func (s *Supervisor) onStop(signal syscall.Signal) {
	sd := s.shutdown
	if sd == nil {
		s.observer.Signalled(signal, actionStop)
		s.beginShutdown(signal, signalName(signal))
		sd, signal = s.shutdown, 0
	}
	if sd.signal == syscall.SIGINT && signal == 0 || signal == syscall.SIGINT {
		sd.interrupts++
	}
	switch {
	case signal == 0:
	case !sd.delayUntil.IsZero():
		s.observer.Signalled(signal, actionStop)
		s.stopAll()
	case s.cfg.Terminal && sd.interrupts >= 3 && !sd.killed:
		s.observer.Signalled(signal, actionStop)
		s.log.Info("interrupted three times: everything is killed")
		s.killAll()
	default:
		s.forward(signal)
	}
}

// shutdownSignal asks the app to stop when crank itself was stopped.
func (s *Supervisor) shutdownSignal() syscall.Signal {
	if s.cfg.StopSignal == 0 && s.shutdown.signal != 0 {
		return s.shutdown.signal
	}
	return s.swapSignal()
}

// signalCause adds the signal to a cause: "SIGTERM: shutdown".
func signalCause(signal syscall.Signal, cause string) string {
	return fmt.Sprintf("%s: %s", signalName(signal), cause)
}

// lastLeaving returns the generation that served last, or the newest leaving one whose main process runs.
func (s *Supervisor) lastLeaving() *generation {
	if s.lastCurrent.live() {
		return s.lastCurrent
	}
	for _, g := range slices.Backward(s.leaving) {
		if g.live() {
			return g
		}
	}
	return nil
}
