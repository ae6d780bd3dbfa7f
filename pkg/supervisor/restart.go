package supervisor

import (
	"math/rand/v2"
	"time"
)

// restart is what is known while nothing serves because the current generation died by itself.
type restart struct {
	died  *generation   // the one that died; nil once another is current
	at    time.Time     // when the next attempt begins; zero: none is planned
	delay time.Duration // of the last attempt
	// giveUp is the deadline for leftover processes of died that survive SIGKILL. Nothing else wakes the loop then.
	giveUp time.Time
}

// restarts reports whether -restart applies to the end of g.
func (s *Supervisor) restarts(g *generation) bool {
	switch s.cfg.Restart {
	case RestartAlways:
		return true
	case RestartOnFailure:
		return s.codeOf(g) != 0
	}
	return false
}

// diedAlone is the end of the one that served, with nothing to take its place.
func (s *Supervisor) diedAlone(g *generation) {
	if !s.restarts(g) {
		s.beginShutdown(0, g.exit.String())
		return
	}
	s.restart.died = g
	if latest := time.Now().Add(restartGrace); g.state == Stopping && g.deadline.After(latest) {
		g.deadline = latest
	}
	s.restart.giveUp = g.deadline.Add(killGrace)
	s.backOff()
}

// backOff plans the next attempt: 0.1 s doubling to 30 s, ±20 % so that many pods do not start together.
func (s *Supervisor) backOff() {
	s.restart.delay = min(max(2*s.restart.delay, backoffFirst), backoffMax)
	wait := time.Duration(float64(s.restart.delay) * (0.8 + 0.4*rand.Float64()))
	s.restart.at = time.Now().Add(wait)
	s.record(nil, Event{Kind: "backoff", Cause: "restart in " + wait.Round(time.Millisecond).String(), Trigger: TriggerRestart})
	s.log.Info("the app has ended: it is started again", "generation", s.restart.died.n, "seconds", wait.Seconds())
}

// restartNow is called at the end of the delay. Leftover processes have restartGrace, then they are killed, and have killGrace to end: while they
// live the next generation has no stdin. The restart waits no longer than necessary.
func (s *Supervisor) restartNow() {
	s.restart.at = time.Time{}
	now := time.Now()
	switch died := s.restart.died; {
	case died.state != Stopping:
	case !died.killed:
		s.restart.at = now.Add(lookInterval)
		if died.deadline.Before(s.restart.at) {
			s.restart.at = died.deadline
		}
		return
	case now.Before(s.restart.giveUp):
		s.restart.at = now.Add(lookSoon)
		return
	}
	if s.candidate == nil {
		s.counts.Restarts++
		s.begin(s.cmd, &swap{trigger: TriggerRestart})
	}
}
