package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// onChildren finds out whether the candidate's exec is over, and takes the status of every process that has ended. A process that has
// ended may have executed its program before.
func (s *Supervisor) onChildren() {
	exits, _ := s.launcher.Reap()
	s.lookAtExec(s.candidate)
	for _, g := range s.generations() {
		s.followMain(g)
	}
	for _, e := range exits {
		if e.Failed == nil {
			s.counts.Reaped++
		}
		if s.probeEnded(e) {
			continue
		}
		if g := s.find(func(g *generation) bool { return g.live() && g.pid == e.PID }); g != nil {
			s.onExit(g, e)
			s.tendSoon() // as their last act, some apps damage what all generations share
		}
	}
	if !s.lookAt.IsZero() {
		s.lookWithin(lookSoon) // leftover processes may be gone, or known, by now
	}
}

// onExit is the end of a generation's main process.
func (s *Supervisor) onExit(g *generation, e proc.Exit) {
	if g.state == Starting && e.Failed != nil {
		s.notExecuted(g, e.Failed)
		return
	}
	if g.state == Starting && g.checking && e.Status() == 0 {
		s.checkPassed(g)
		return
	}
	g.exit = &e
	g.child.Gone()
	s.observer.Exited(g.state, exitCause(g, e))
	switch g.state {
	case Starting, Settling:
		reason, cause := g.diedStarting(e)
		s.candidate = nil
		s.gone(g, min(s.stopLimit(g), failedGrace), cause)
		s.failed(g, reason, cause)
	case Ready:
		s.currentDied(g)
	case Stopping:
		s.gone(g, 0, e.String())
	}
}

// currentDied decides what the end of the one that serves means.
func (s *Supervisor) currentDied(g *generation) {
	s.current = nil
	if time.Since(g.since) >= backoffForgive {
		s.restart.delay = 0
	}
	cause := g.exit.String()
	s.gone(g, s.stopLimit(g), cause)
	switch {
	case s.shutdown != nil:
		s.stopAll()
	case s.candidate == nil:
		s.diedAlone(g)
	case s.candidate.state == Settling:
		s.log.Info("the generation that served has ended: the settling one takes over", "generation", s.candidate.n, "cause", cause)
		s.promote(s.candidate, causePromoted)
	default:
		s.restart.died = g
		s.log.Info("the generation that served has ended: not ready until the starting one is", "generation", s.candidate.n, "cause", cause)
	}
}

// gone sees to what the main process left behind: it gets the stop signal now, and limit until it
// is killed. With nothing left the generation is over.
func (s *Supervisor) gone(g *generation, limit time.Duration, cause string) {
	signal := g.stopSignal
	switch {
	case g.killed:
		signal = syscall.SIGKILL
	case signal != 0:
	case s.shutdown != nil:
		signal = s.shutdownSignal()
	default:
		signal = s.swapSignal()
	}
	g.others = g.child.Others(signal)
	if g.others > 0 && g.state != Stopping {
		s.become(g, Stopping, fmt.Sprintf("%s, %d other processes left", cause, g.others))
		s.addLeaving(g, signal, limit)
	}
	s.endIfAlone(g, cause)
}

// endIfAlone ends a generation whose main process is gone, unless others are left: then it looks again.
func (s *Supervisor) endIfAlone(g *generation, cause string) {
	if g.others > 0 {
		s.lookWithin(lookInterval)
		return
	}
	s.become(g, Exited, cause)
	s.remove(g)
}

// lookWithin has look called after at most d.
func (s *Supervisor) lookWithin(d time.Duration) {
	if at := time.Now().Add(d); s.lookAt.IsZero() || at.Before(s.lookAt) {
		s.lookAt = at
	}
}

// look finds out whether what was left behind is gone. It was asked to stop once, and is not asked again.
func (s *Supervisor) look() {
	s.lookAt = time.Time{}
	for _, g := range slices.Clone(s.leaving) {
		if g.exit == nil {
			continue
		}
		signal := syscall.Signal(0)
		if g.killed {
			signal = syscall.SIGKILL
		}
		g.others = g.child.Others(signal)
		s.endIfAlone(g, g.exit.String())
	}
	if s.shutdown != nil && s.shutdown.straysTold {
		s.seeOffStrays()
	}
}

// leave asks g to stop, and has it killed after limit.
func (s *Supervisor) leave(g *generation, signal syscall.Signal, limit time.Duration, cause string) {
	s.become(g, Stopping, signalCause(signal, cause))
	s.addLeaving(g, signal, limit)
	_ = s.signal(g, signal) // logged there
}

// addLeaving puts g among the leaving ones, in the order of their numbers.
func (s *Supervisor) addLeaving(g *generation, signal syscall.Signal, limit time.Duration) {
	g.stopSignal = signal
	g.deadline = time.Now().Add(s.withinShutdown(limit))
	s.leaving = append(s.leaving, g)
	slices.SortFunc(s.leaving, byNumber)
}

// signal signals a generation's main process, or its group.
func (s *Supervisor) signal(g *generation, signal syscall.Signal) error {
	err := g.child.Signal(signal, s.cfg.Group)
	if err != nil {
		s.log.Error(err, "cannot signal a generation", "generation", g.n, "pid", g.pid, "signal", signal)
	}
	return err
}

// kill ends all that belongs to g. It stays Stopping until the kernel says that it is gone.
func (s *Supervisor) kill(g *generation, phase, cause string) {
	g.killed, g.deadline = true, time.Time{}
	s.observer.Killed(phase)
	s.record(g, Event{Kind: "killed", Cause: cause})
	s.log.Info("generation killed", "generation", g.n, "pid", g.pid, "cause", cause)
	if g.exit == nil {
		if err := g.child.Signal(syscall.SIGKILL, true); err != nil {
			s.log.Error(err, "cannot kill a generation", "generation", g.n, "pid", g.pid)
		}
	}
	g.others = g.child.Others(syscall.SIGKILL)
	if g.exit != nil {
		s.lookWithin(lookSoon)
	}
}

// expire acts upon the deadlines that are over.
func (s *Supervisor) expire(now time.Time) {
	due := func(d time.Time) bool { return !d.IsZero() && !d.After(now) }
	for _, g := range s.generations() {
		// Each may move g on, and then the next finds its own deadline gone.
		if due(g.deadline) {
			s.onDeadline(g)
		}
		if due(g.watchdog.due) {
			s.onWatchdogDue(g)
		}
		if due(g.reload.deadline) {
			s.onReloadLate(g)
		}
		if due(g.proveAt) {
			s.onProve(g)
		}
	}
	s.expireProbes(due)
	if s.shutdown != nil {
		if due(s.shutdown.delayUntil) {
			s.stopAll()
		}
		if due(s.shutdown.deadline) {
			s.killAll()
		}
	}
	if due(s.restart.at) {
		s.restartNow()
	}
	if due(s.lookAt) {
		s.look()
	}
}

// onDeadline is the end of the time that g has in its state.
func (s *Supervisor) onDeadline(g *generation) {
	g.deadline = time.Time{}
	switch g.state {
	case Starting:
		s.failCandidate(reasonTimeout, s.notInTime(g))
	case Settling:
		s.promote(g, "settled")
	case Stopping:
		s.kill(g, s.latePhase(g), fmt.Sprintf("not gone in time (%v)", time.Since(g.since).Round(time.Millisecond)))
	}
}

// advance begins what had to wait: one swap for all the HUPs that came meanwhile, and the last
// steps of the shutdown.
func (s *Supervisor) advance() {
	if s.hupPending && s.shutdown == nil && s.candidate == nil && !s.drainingFull() {
		s.hupPending = false
		if s.cmd.IsZero() {
			s.ignoreHUP()
		} else if err := s.noRoom(); err != nil {
			s.refused(Request{Trigger: TriggerHUP}, err)
		} else {
			s.begin(s.cmd, &swap{trigger: TriggerHUP})
		}
	}
	if s.shutdown != nil && len(s.generations()) == 0 && !s.shutdown.straysTold {
		s.seeOffStrays()
	}
}

// KillRequest selects generations: States are OR, PID (0: any) is AND.
type KillRequest struct {
	States []State // none: any
	PID    int
	Signal syscall.Signal
	Asker  Asker
}

type killCall struct {
	request KillRequest
	reply   chan<- killReply // 1-buffered
}

type killReply struct {
	generations []GenerationStatus
	err         error
}

// Kill sends a signal to the generations that match, and returns them as they were before.
func (s *Supervisor) Kill(ctx context.Context, k KillRequest) ([]GenerationStatus, error) {
	reply := make(chan killReply, 1)
	answer, err := call(ctx, s, s.kills, killCall{k, reply}, reply)
	if err != nil {
		return nil, err
	}
	return answer.generations, answer.err
}

func (s *Supervisor) onKill(c killCall) {
	k := c.request
	var r killReply
	var failed []string
	for _, g := range s.generations() {
		if len(k.States) > 0 && !slices.Contains(k.States, g.state) || k.PID != 0 && k.PID != g.pid {
			continue
		}
		r.generations = append(r.generations, g.snapshot())
		s.record(g, Event{Kind: "signal", Cause: signalName(k.Signal), Asker: k.Asker})
		s.log.Info("signal on request", "generation", g.n, "pid", g.pid, "signal", signalName(k.Signal), "asker", describe("kill", k.Asker))
		if g.exit != nil {
			g.child.Others(k.Signal)
		} else if err := s.signal(g, k.Signal); err != nil {
			failed = append(failed, err.Error())
		}
	}
	if failed != nil {
		r.err = refuse(refusedSelf, "cannot signal: %s", strings.Join(failed, "; "))
	}
	s.answers = append(s.answers, func() { c.reply <- r })
}

// find returns the first generation that matches, or nil.
func (s *Supervisor) find(match func(*generation) bool) *generation {
	for _, g := range s.generations() {
		if match(g) {
			return g
		}
	}
	return nil
}

// stopLimit is how long g may take to drain.
func (s *Supervisor) stopLimit(g *generation) time.Duration { return orDefault(g.cmd.Stop, s.cfg.Stop) }
