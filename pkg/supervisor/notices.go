package supervisor

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// noticeCall is a message of an app on its way to the loop.
type noticeCall struct {
	generation int
	message    notify.Message
	handled    chan struct{}
}

// Notice passes on a message of generation n, and returns when it has had its effect.
func (s *Supervisor) Notice(n int, m notify.Message) {
	c := noticeCall{n, m, make(chan struct{})}
	select {
	case s.notices <- c:
		<-c.handled
	case <-s.done:
	}
}

// parts are what a message can say, in the order in which it has its effect: MAINPID before READY, so that
// what is ready is the right process; a failure before READY, since then there is none. effect returns false where it has
// none in the state that the generation is in.
var parts = []struct {
	in     func(notify.Message) bool
	effect func(*Supervisor, *generation, notify.Message) bool
}{
	{func(m notify.Message) bool { return m.HasStatus }, (*Supervisor).onStatus},
	{func(m notify.Message) bool { return m.MainPID != 0 }, (*Supervisor).onMainPID},
	{func(m notify.Message) bool { return m.Has("WATCHDOG_USEC") }, (*Supervisor).onWatchdogPeriod},
	{func(m notify.Message) bool { return m.ExtendTimeoutUsec != 0 }, (*Supervisor).onExtend},
	{func(m notify.Message) bool { return m.Failed != "" || m.Errno != 0 }, (*Supervisor).onSaidFailed},
	{func(m notify.Message) bool { return m.Stopping }, (*Supervisor).onSaidStopping},
	{func(m notify.Message) bool { return m.Reloading }, (*Supervisor).onReloading},
	{func(m notify.Message) bool { return m.Ready }, (*Supervisor).onSaidReady},
	{func(m notify.Message) bool { return m.Watchdog == notify.WatchdogPing }, (*Supervisor).onPing},
	{func(m notify.Message) bool { return m.Watchdog == notify.WatchdogTrigger }, (*Supervisor).onTrigger},
}

// onNotice is a message of an app.
func (s *Supervisor) onNotice(c noticeCall) {
	s.answers = append(s.answers, func() { close(c.handled) })
	g := s.find(func(g *generation) bool { return g.n == c.generation })
	if g == nil {
		s.counts.IgnoredNotices++
		return
	}
	if g.executing {
		s.counts.IgnoredNotices++ // it cannot be from the app
		return
	}
	ignored, candidate := false, g.candidate()
	for _, part := range parts {
		if candidate && g.state == Stopping {
			break // it has failed: the rest of the message means nothing
		}
		if part.in(c.message) && !part.effect(s, g, c.message) {
			ignored = true
		}
	}
	if ignored {
		s.counts.IgnoredNotices++
	}
	s.heard = true
}

// candidate reports whether g has to prove itself yet.
func (g *generation) candidate() bool { return g.state == Starting || g.state == Settling }

// serves reports whether g has said READY, and was not asked to stop.
func (g *generation) serves() bool { return g.state == Settling || g.state == Ready }

func (s *Supervisor) onStatus(g *generation, m notify.Message) bool {
	g.text = m.Status
	return true
}

// onSaidFailed is X_CRANK_FAILED= or ERRNO=. From one that is no candidate any more it is a status.
func (s *Supervisor) onSaidFailed(g *generation, m notify.Message) bool {
	said := "said that it failed: " + m.Failed
	if m.Failed == "" {
		said = fmt.Sprintf("said ERRNO=%d (%v)", m.Errno, syscall.Errno(m.Errno))
	}
	if g.candidate() {
		s.failCandidate(reasonReported, said)
	} else {
		g.text = said
	}
	return true
}

func (s *Supervisor) onSaidStopping(g *generation, _ notify.Message) bool {
	if g.candidate() {
		s.takeSignals() // what stops the app may have stopped crank as well, see afterSignals
	}
	switch {
	case g.candidate():
		s.failCandidate(reasonReported, "said STOPPING=1 before it was current")
	case g.state == Stopping:
		return false
	case !g.saidStopping:
		g.saidStopping = true
		s.log.Info("the app says that it stops: not ready", "generation", g.n, "pid", g.pid)
	}
	return true
}

// onSaidReady is the end of the start, or of a reload.
func (s *Supervisor) onSaidReady(g *generation, _ notify.Message) bool {
	switch {
	case g.state == Starting && s.takesReady(g):
		s.becameReady(g)
	case g.serves() && g.reload.active:
		s.reloaded(g)
	default:
		return false
	}
	return true
}

// onMainPID makes another process the main one of its generation.
func (s *Supervisor) onMainPID(g *generation, m notify.Message) bool {
	if g.state == Stopping || g.checking {
		return false
	}
	if m.MainPID == g.pid {
		return true
	}
	switch err := g.child.SetMain(m.MainPID); {
	case errors.Is(err, proc.ErrEnded):
		s.log.V(1).Info("MAINPID names an ended process", "generation", g.n, "pid", g.pid, "mainPID", m.MainPID)
		return true
	case err != nil:
		s.log.Info("MAINPID refused", "generation", g.n, "pid", g.pid, "mainPID", m.MainPID, "cause", err.Error())
		return false
	}
	s.mainChanged(g, "main PID changed by the app")
	return true
}

// followMain handles the end of a named main process: the launched one is the main process again. If the named one was asked to
// stop, the launched one is asked now.
func (s *Supervisor) followMain(g *generation) {
	if !g.live() || g.child.PID() == g.pid {
		return
	}
	s.mainChanged(g, "named main process ended")
	switch {
	case g.killed:
		_ = s.signal(g, syscall.SIGKILL) // logged there
	case g.state == Stopping:
		_ = s.signal(g, g.stopSignal)
	}
}

func (s *Supervisor) mainChanged(g *generation, message string) {
	was := g.pid
	g.pid = g.child.PID()
	s.record(g, Event{Kind: "mainpid", Cause: fmt.Sprintf("in the place of pid %d", was)})
	s.log.Info(message, "generation", g.n, "pid", g.pid, "was", was)
}

// extension is what EXTEND_TIMEOUT_USEC has added to the deadline of a state.
type extension struct {
	added time.Duration
	said  bool // that -max-extend is reached
}

// onExtend moves the deadline of a start or a drain to that much from now, if it is earlier, within -max-extend.
// A candidate that has failed gets no more time: nothing that it could finish is wanted.
func (s *Supervisor) onExtend(g *generation, m notify.Message) bool {
	if g.checking || g.state != Starting && !g.drains() {
		return false
	}
	if g.deadline.IsZero() {
		return true // there is no limit
	}
	wanted := notify.Duration(m.ExtendTimeoutUsec) - max(time.Until(g.deadline), 0)
	more := min(wanted, s.cfg.MaxExtend-g.extended.added)
	if more < wanted && !g.extended.said {
		g.extended.said = true
		s.log.Info("the app asks for more time than -max-extend gives", "generation", g.n, "pid", g.pid, "state", g.state.String(),
			"maxExtend", s.cfg.MaxExtend.String())
	}
	if more <= 0 {
		return true
	}
	g.extended.added += more
	g.deadline = g.deadline.Add(more)
	if sd := s.shutdown; sd != nil && !sd.deadline.IsZero() && sd.deadline.Before(g.deadline) {
		sd.deadline = g.deadline
	}
	return true
}

// drains reports whether g was asked to stop, has served, and may take its time.
func (g *generation) drains() bool {
	return g.state == Stopping && g.exit == nil && !g.killed && (g.wasCurrent || g.drainsInFull)
}

// reload is an app that loads its configuration anew by itself, as it says with RELOADING=1. It stays ready.
type reload struct {
	active   bool
	began    time.Time
	deadline time.Time // when it should be over; zero: any time
	asOf     uint64    // MONOTONIC_USEC of the newest one
}

// onReloading is RELOADING=1. Some servers say it before their first READY too, where it means nothing.
func (s *Supervisor) onReloading(g *generation, m notify.Message) bool {
	if g.state == Starting {
		return true
	}
	r := &g.reload
	if !g.serves() || m.MonotonicUsec != 0 && m.MonotonicUsec <= r.asOf {
		return false // leaving, or overtaken by one that was said later
	}
	now := time.Now()
	if !r.active {
		r.began = now
		s.record(g, Event{Kind: "reloading", Text: g.text})
		s.log.Info("the app reloads itself", "generation", g.n, "pid", g.pid)
	}
	r.active, r.asOf, r.deadline = true, max(r.asOf, m.MonotonicUsec), time.Time{}
	if limit := orDefault(g.cmd.Start, s.cfg.Start); limit > 0 {
		r.deadline = now.Add(limit)
	}
	return true
}

// reloaded is the READY=1 that ends a reload.
func (s *Supervisor) reloaded(g *generation) {
	took := time.Since(g.reload.began)
	g.reload = reload{asOf: g.reload.asOf}
	s.record(g, Event{Kind: "reloaded", Text: g.text, Took: took})
	s.log.Info("the app has reloaded itself", "generation", g.n, "pid", g.pid, "seconds", took.Seconds())
}

// onReloadLate gives a reload up: whether the app is well is for its watchdog and its probes to say.
func (s *Supervisor) onReloadLate(g *generation) {
	took := time.Since(g.reload.began).Round(time.Millisecond)
	g.reload = reload{asOf: g.reload.asOf}
	s.record(g, Event{Kind: "overdue", Cause: fmt.Sprintf("no READY=1 in the %v since RELOADING=1", took), Took: took})
	s.log.Info("the app does not say that its reload is over", "generation", g.n, "pid", g.pid, "seconds", took.Seconds())
}
