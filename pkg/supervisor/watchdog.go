package supervisor

import (
	"fmt"
	"time"

	"github.com/crankctl/crank/pkg/notify"
)

// Watchdog is what happens when the current generation misses its watchdog. It is not ready until its next
// WATCHDOG=1 in any case.
type Watchdog int

// The values of -watchdog.
const (
	WatchdogReport Watchdog = iota
	WatchdogSwap            // another one is started, to take its place
	WatchdogExit            // crank ends
)

// watchdog is what a generation has promised: a WATCHDOG=1 in every period, from READY until it is asked to
// stop (systemd.service(5), WatchdogSec=).
type watchdog struct {
	period time.Duration // 0: none
	due    time.Time     // zero: it does not run
	late   bool          // due was over once: lastCall is left
	missed bool          // while current, and not pinged since
}

// lastCall is for a ping that is on its way through crank: where crank itself was held up, its clock runs out
// first.
const lastCall = 100 * time.Millisecond

// restart begins a period.
func (w *watchdog) restart() {
	w.due, w.late = time.Time{}, false
	if w.period > 0 {
		w.due = time.Now().Add(w.period)
	}
}

// follow has the watchdog run while g serves. It is called after every move.
func (w *watchdog) follow(s *Supervisor, g *generation, from State) {
	switch {
	case g.state == Starting:
		w.period = s.cfg.WatchdogTimeout
	case !g.serves():
		*w = watchdog{}
	case from == Starting:
		w.restart()
	}
}

// onWatchdogPeriod is WATCHDOG_USEC=, which replaces -watchdog-timeout for this generation.
func (s *Supervisor) onWatchdogPeriod(g *generation, m notify.Message) bool {
	if g.state == Stopping {
		return false
	}
	w := &g.watchdog
	w.period = notify.Duration(m.WatchdogUsec)
	if g.serves() {
		w.restart()
	}
	if w.period == 0 {
		s.alive(g, "said WATCHDOG_USEC=0")
	}
	return true
}

// onPing is WATCHDOG=1.
func (s *Supervisor) onPing(g *generation, _ notify.Message) bool {
	w := &g.watchdog
	if !g.serves() || w.period == 0 && !w.missed {
		return false // nobody waits for it
	}
	w.restart()
	s.alive(g, "said WATCHDOG=1 again")
	return true
}

// onTrigger is WATCHDOG=trigger.
func (s *Supervisor) onTrigger(g *generation, _ notify.Message) bool {
	if !g.serves() {
		return false
	}
	s.onMiss(g, "said WATCHDOG=trigger")
	return true
}

// onWatchdogDue is the end of a period without a ping.
func (s *Supervisor) onWatchdogDue(g *generation) {
	w := &g.watchdog
	if !w.late {
		w.late, w.due = true, time.Now().Add(lastCall)
		return
	}
	s.onMiss(g, fmt.Sprintf("no WATCHDOG=1 for %v", w.period))
}

// onMiss acts upon a miss. The next one is a period later at the earliest.
func (s *Supervisor) onMiss(g *generation, cause string) {
	w := &g.watchdog
	if g.state == Settling {
		s.failCandidate(reasonSettle, cause+" while settling")
		return
	}
	w.restart()
	if !w.missed {
		w.missed = true
		s.record(g, Event{Kind: "missed", Cause: cause})
		s.log.Info("the app missed its watchdog: not ready", "generation", g.n, "pid", g.pid, "cause", cause)
	}
	if s.shutdown != nil {
		return
	}
	switch s.cfg.Watchdog {
	case WatchdogSwap:
		s.replaceHung()
	case WatchdogExit:
		g.hung = true
		s.beginShutdown(0, fmt.Sprintf("generation %d missed its watchdog, %s", g.n, cause))
	}
}

// alive is the end of having missed it.
func (s *Supervisor) alive(g *generation, cause string) {
	if !g.watchdog.missed {
		return
	}
	g.watchdog.missed = false
	s.record(g, Event{Kind: "alive", Cause: cause})
	s.log.Info("the app is alive again", "generation", g.n, "pid", g.pid, "cause", cause)
}

// replaceHung begins a swap to the same command, unless one is under way. One that cannot begin, or fails, is
// tried again when the next period is missed as well.
func (s *Supervisor) replaceHung() {
	if s.candidate != nil {
		return
	}
	err := s.noRoom()
	if s.drainingFull() {
		err = refuse(refusedDraining, "%d generations are still draining (-max-draining %d)", s.draining(), s.cfg.MaxDraining)
	}
	if err != nil {
		s.refused(Request{Trigger: TriggerRestart}, err)
		return
	}
	s.begin(s.cmd, &swap{trigger: TriggerRestart})
}
