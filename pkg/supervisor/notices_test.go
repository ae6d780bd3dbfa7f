package supervisor

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// What an app can say to be given time, to be watched, to be renamed. The cells say what counts when.

func extend(d time.Duration) notify.Message {
	return notify.Message{ExtendTimeoutUsec: uint64(d.Microseconds())}
}

var (
	ping     = notify.Message{Watchdog: notify.WatchdogPing}
	trigger  = notify.Message{Watchdog: notify.WatchdogTrigger}
	readySay = notify.Message{Ready: true}
)

func period(d time.Duration) notify.Message {
	return notify.Message{WatchdogUsec: uint64(d.Microseconds()), Keys: []string{"WATCHDOG_USEC"}}
}

// extending gives at most a minute more than the defaults.
func extending(t *testing.T) *world {
	return start(t, with(func(c *Config) { c.MaxExtend = time.Minute }), v1, nil)
}

func TestExtend(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"a start, until it is ready": func(t *testing.T) {
			w := extending(t)
			for range 3 {
				w.pass(20 * time.Second)
				w.says(1, extend(25*time.Second))
				w.wantLeft(1, 25*time.Second)
			}
			w.ready(1)
			w.wantStates("1 ready")
		},
		"never makes it shorter": func(t *testing.T) {
			w := extending(t)
			w.says(1, extend(time.Second))
			w.wantLeft(1, 30*time.Second)
		},
		"at most as far as allowed": func(t *testing.T) {
			w := extending(t)
			w.says(1, notify.Message{ExtendTimeoutUsec: 1<<64 - 1})
			w.wantLeft(1, 90*time.Second)
			w.pass(80 * time.Second)
			w.says(1, extend(30*time.Second))
			w.wantLeft(1, 10*time.Second)
			w.pass(10 * time.Second)
			w.wantSignals(1, "TERM")
			w.exits(1, 0, 0)
			w.wantExit(124)
			if e := w.event("failed"); e.Cause != "not ready in time (1m30s)" {
				t.Errorf("%+v", e)
			}
		},
		"a start without a limit": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Start = 0; c.MaxExtend = time.Minute }), v1, nil)
			w.says(1, extend(time.Second))
			w.pass(time.Hour)
			w.wantStates("1 starting")
		},
		"not without leave": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, extend(time.Hour))
			w.wantLeft(1, 30*time.Second)
		},
		"a drain has a cap of its own": func(t *testing.T) {
			w := extending(t)
			w.says(1, extend(time.Hour))
			w.serve(1)
			w.swap(Request{})
			w.serve(2)
			w.says(1, extend(80*time.Second))
			w.wantLeft(1, 80*time.Second)
			w.pass(10 * time.Second)
			w.says(1, extend(time.Hour))
			w.wantLeft(1, 80*time.Second)
			w.pass(80 * time.Second)
			w.wantSignals(1, "TERM group KILL")
		},
		"a shutdown, with crank's own deadline": func(t *testing.T) {
			w := extending(t)
			w.serve(1)
			w.signal(syscall.SIGTERM)
			w.pass(20 * time.Second)
			w.says(1, extend(time.Minute))
			w.pass(59 * time.Second)
			w.wantStates("1 stopping")
			w.says(1, extend(time.Minute))
			w.wantLeft(1, 11*time.Second)
			w.pass(11 * time.Second)
			w.wantSignals(1, "TERM group KILL")
			w.wantExit(137)
		},
		"a drain that the shutdown has cut short": func(t *testing.T) {
			w := extending(t)
			w.serve(1)
			w.swap(Request{})
			w.serve(2)
			w.says(1, extend(time.Hour))
			w.signal(syscall.SIGTERM)
			w.wantLeft(1, 30*time.Second)
			w.says(1, extend(time.Hour))
			w.wantLeft(1, 90*time.Second)
			w.exits(2, 0, 0)
			w.pass(90*time.Second - 1)
			w.wantStates("1 stopping")
			w.pass(1)
			w.wantExit(0)
		},
		"not a candidate that has failed": func(t *testing.T) {
			w := extending(t)
			w.serve(1)
			w.swap(Request{})
			w.says(2, notify.Message{Failed: "no"})
			w.says(2, extend(time.Minute))
			w.wantLeft(2, 5*time.Second)
			w.swap(Request{})
			w.signal(syscall.SIGTERM)
			w.says(3, extend(time.Minute))
			w.wantLeft(3, time.Second)
		},
		"one that was settling when somebody wanted another": func(t *testing.T) {
			w := extending(t)
			w.serve(1)
			w.swap(Request{})
			w.ready(2)
			w.abort()
			w.says(2, extend(time.Minute))
			w.wantLeft(2, time.Minute)
		},
		"not what is left behind": func(t *testing.T) {
			w := extending(t)
			w.serve(1)
			w.swap(Request{})
			w.serve(2)
			w.exits(1, 0, 2)
			w.says(1, extend(time.Minute))
			w.wantLeft(1, 30*time.Second)
		},
		"a pause is not charged": func(t *testing.T) {
			w := extending(t)
			w.says(1, extend(time.Minute))
			w.pause(time.Hour)
			w.says(1, extend(2*time.Hour))
			w.wantLeft(1, 90*time.Second)
		},
	})
}

// hanging serves with a watchdog of 10 s.
func hanging(t *testing.T, act Watchdog, change func(*Config)) *world {
	t.Helper()
	w := start(t, with(func(c *Config) {
		c.Watchdog, c.WatchdogTimeout = act, 10*time.Second
		if change != nil {
			change(c)
		}
	}), v1, nil)
	w.pass(20 * time.Second) // it does not run yet
	w.ready(1)
	return w
}

func (w *world) wantReady(reason string) {
	w.t.Helper()
	if got := w.s.Status().Reason; got != reason {
		w.t.Fatalf("not ready because of %q, want %q: %s", got, reason, w.states())
	}
}

func TestWatchdog(t *testing.T) {
	const missed = "generation 1 missed its watchdog"
	stories(t, map[string]func(*testing.T){
		"report": func(t *testing.T) {
			w := hanging(t, WatchdogReport, nil)
			w.pass(10*time.Second + lastCall - 1)
			w.wantReady("")
			w.pass(1)
			w.wantReady(missed)
			if g := w.s.Status().Generations[0]; !g.Missed {
				t.Errorf("%+v", g)
			}
			w.pass(time.Hour)
			w.wantEvents("missed", "no WATCHDOG=1 for 10s")
			w.says(1, ping)
			w.wantReady("")
			w.wantEvents("alive", "said WATCHDOG=1 again")
			w.pass(11 * time.Second)
			w.wantReady(missed)
		},
		"a ping that was held up with crank": func(t *testing.T) {
			for range 20 { // the loop chooses what it takes first
				w := hanging(t, WatchdogExit, nil)
				w.pass(9 * time.Second)
				w.kernel.stop(2 * time.Second)
				time.Sleep(time.Second) // due, while crank does something else
				go w.s.Notice(1, ping)
				w.pass(2 * time.Second)
				w.wantReady("")
			}
		},
		"a pause is not charged": func(t *testing.T) {
			w := hanging(t, WatchdogExit, nil)
			w.pass(9 * time.Second)
			w.pause(time.Hour)
			w.wantReady("")
			w.says(1, ping)
			w.pass(10 * time.Second)
			w.wantReady("")
		},
		"the app's own period": func(t *testing.T) {
			w := hanging(t, WatchdogReport, nil)
			w.says(1, period(time.Minute))
			w.pass(time.Minute)
			w.wantReady("")
			w.pass(lastCall)
			w.wantReady(missed)
			w.says(1, period(0))
			w.wantReady("")
			w.wantEvents("alive", "said WATCHDOG_USEC=0")
			w.pass(time.Hour)
			w.wantReady("")
		},
		"off before it is ready": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.WatchdogTimeout = time.Second }), v1, nil)
			w.says(1, period(0))
			w.ready(1)
			w.pass(time.Hour)
			w.wantReady("")
		},
		"with READY in one message": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			m := period(5 * time.Second)
			m.Ready, m.Watchdog = true, notify.WatchdogPing
			w.says(1, m)
			w.pass(6 * time.Second)
			w.wantReady(missed)
			if got := w.s.Status().Counters.IgnoredNotices; got != 0 {
				t.Errorf("%d messages were ignored", got)
			}
		},
		"a trigger without a period": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, trigger)
			w.wantReady(missed)
			w.says(1, trigger)
			w.wantEvents("missed", "said WATCHDOG=trigger")
			w.says(1, ping)
			w.wantReady("")
		},
		"the next one begins anew": func(t *testing.T) {
			w := hanging(t, WatchdogReport, nil)
			w.pass(11 * time.Second)
			w.swap(Request{})
			w.serve(2)
			w.wantReady("")
			w.pass(10 * time.Second)
			w.wantReady("generation 2 missed its watchdog")
		},
		"while settling": func(t *testing.T) {
			w := hanging(t, WatchdogReport, func(c *Config) { c.Settle = time.Minute })
			ticket, _ := w.swap(Request{})
			w.says(1, period(0))
			w.ready(2)
			w.pass(11 * time.Second)
			w.wantFailed(ticket, "no WATCHDOG=1 for 10s while settling")
			w.wantLeft(2, 5*time.Second-900*time.Millisecond)
			w.wantReady("")
		},
		"swap": func(t *testing.T) {
			w := hanging(t, WatchdogSwap, nil)
			w.pass(11 * time.Second)
			w.wantStates("1 ready, 2 starting")
			w.wantReady(missed)
			if g := w.s.Status().Generations[1]; g.Trigger != TriggerRestart {
				t.Errorf("%+v", g)
			}
			w.serve(2)
			w.wantStates("1 stopping, 2 ready")
			w.wantReady("")
		},
		"swap, which fails": func(t *testing.T) {
			w := hanging(t, WatchdogSwap, nil)
			w.pass(11 * time.Second)
			w.exits(2, 3, 0)
			w.wantStates("1 ready")
			w.wantReady(missed)
			w.pass(9 * time.Second)
			w.wantStates("1 ready") // not before the next period is over
			w.pass(time.Second)
			w.wantStates("1 ready, 3 starting")
			w.says(1, ping)
			w.wantReady("") // the swap goes on
			w.serve(3)
		},
		"swap, while one is under way": func(t *testing.T) {
			w := hanging(t, WatchdogSwap, nil)
			w.swap(Request{})
			w.pass(11 * time.Second)
			w.wantStates("1 ready, 2 starting")
			w.exits(2, 3, 0)
			w.pass(10 * time.Second)
			w.wantStates("1 ready, 3 starting")
		},
		"swap, without room": func(t *testing.T) {
			full := fmt.Errorf("full")
			w := start(t, with(func(c *Config) { c.Watchdog = WatchdogSwap }), v1, func(o *Options) { o.Room = func() error { return full } })
			w.serve(1)
			w.says(1, trigger)
			w.wantStates("1 ready")
			if e := w.event("refused"); e.Trigger != TriggerRestart {
				t.Errorf("%+v", e)
			}
		},
		"swap, with too many that drain": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Watchdog, c.MaxDraining = WatchdogSwap, 1 }), v1, nil)
			w.serve(1)
			w.swap(Request{})
			w.serve(2)
			w.says(2, trigger)
			w.wantStates("1 stopping, 2 ready")
			w.exits(1, 0, 0)
			w.says(2, trigger)
			w.wantStates("2 ready, 3 starting")
		},
		"exit, killed": func(t *testing.T) {
			w := hanging(t, WatchdogExit, func(c *Config) { c.DrainDelay = time.Hour; c.Restart = RestartAlways })
			w.pass(11 * time.Second)
			w.wantSignals(1, "TERM")
			w.pass(30 * time.Second)
			w.wantExit(137)
			if reason, _ := w.s.Ending(); reason != "generation 1 missed its watchdog, no WATCHDOG=1 for 10s: generation 1 (pid 1001) killed by SIGKILL" {
				t.Errorf("ending %q", reason)
			}
		},
		"exit, with its code":     func(t *testing.T) { wantHungExit(t, 7, 7) },
		"exit, but never 0":       func(t *testing.T) { wantHungExit(t, 0, 1) },
		"exit, never an ok code":  func(t *testing.T) { wantHungExit(t, 143, 1) },
		"exit, asked for already": func(t *testing.T) { wantExitWhileStopping(t) },
	})
}

// wantHungExit has the app end with code once it has missed its watchdog.
func wantHungExit(t *testing.T, code, want int) {
	w := hanging(t, WatchdogExit, func(c *Config) { c.OKCodes = map[int]bool{143: true} })
	w.pass(11 * time.Second)
	w.exits(1, code, 0)
	w.wantExit(want)
}

// wantExitWhileStopping: who stopped crank is answered with the app's own code.
func wantExitWhileStopping(t *testing.T) {
	w := hanging(t, WatchdogExit, func(c *Config) { c.DrainDelay = time.Minute })
	w.signal(syscall.SIGTERM)
	w.pass(11 * time.Second)
	w.wantStates("1 ready")
	w.exits(1, 0, 0)
	w.wantExit(0)
}

func TestReload(t *testing.T) {
	reloading := func(usec uint64) notify.Message {
		return notify.Message{Reloading: true, MonotonicUsec: usec, HasStatus: true, Status: "reading"}
	}
	is := func(w *world, want bool) {
		w.t.Helper()
		if g := w.s.Status().Generations[0]; g.Reloading != want {
			w.t.Fatalf("reloading: %v", g.Reloading)
		}
	}
	stories(t, map[string]func(*testing.T){
		"is over": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			is(w, true)
			w.wantReady("")
			w.pass(5 * time.Second)
			w.says(1, notify.Message{Ready: true, HasStatus: true, Status: "42 routes"})
			is(w, false)
			if e := w.event("reloaded"); e.Took != 5*time.Second || e.Text != "42 routes" {
				t.Errorf("%+v", e)
			}
			w.says(1, readySay)
			if got := w.s.Status().Counters.IgnoredNotices; got != 1 {
				t.Errorf("%d messages were ignored, want the second READY", got)
			}
		},
		"is late": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.pass(29 * time.Second)
			is(w, true)
			w.pass(time.Second)
			is(w, false)
			w.wantReady("")
			w.wantStates("1 ready")
			w.wantSignals(1, "")
			w.wantEvents("overdue", "no READY=1 in the 30s since RELOADING=1")
		},
		"the limit is the command's": func(t *testing.T) {
			w := start(t, defaults, Command{Argv: v1.Argv, Start: time.Second}, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.pass(time.Second)
			is(w, false)
		},
		"without a limit": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Start = 0 }), v1, nil)
			w.serve(1)
			w.says(1, reloading(0))
			w.pass(time.Hour)
			is(w, true)
		},
		"old messages": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.says(1, readySay)
			for _, old := range []uint64{9, 10} {
				w.says(1, reloading(old))
				is(w, false)
			}
			w.says(1, reloading(11))
			is(w, true)
		},
		"again before it is over": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.pass(20 * time.Second)
			w.says(1, reloading(20))
			w.pass(20 * time.Second)
			is(w, true)
			w.wantEvents("reloading", "")
			w.says(1, readySay)
			is(w, false)
		},
		"dies meanwhile": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.exits(1, 9, 0)
			w.wantExit(9)
		},
		"is replaced meanwhile": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.swap(Request{})
			w.serve(2)
			w.wantStates("1 stopping, 2 ready")
			is(w, false)
			w.pass(29 * time.Second)
			w.wantStates("1 stopping, 2 ready")
		},
		"a pause is not charged": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, reloading(10))
			w.pause(time.Hour)
			w.pass(29 * time.Second)
			is(w, true)
		},
		"before the first READY": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, reloading(10))
			is(w, false)
			w.says(1, readySay)
			w.wantStates("1 ready")
			if got := w.s.Status().Counters.IgnoredNotices; got != 0 {
				t.Errorf("%d messages were ignored", got)
			}
		},
	})
}

// TestSaid: a status message wakes the waiting goroutines once the snapshot has it.
func TestSaid(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"STATUS and EXTEND_TIMEOUT_USEC": func(t *testing.T) {
			cfg := defaults
			cfg.MaxExtend = time.Hour
			w := start(t, cfg, v1, nil)
			for _, m := range []notify.Message{{HasStatus: true, Status: "warm"}, {ExtendTimeoutUsec: 3600e6}} {
				said := w.s.Said()
				w.says(1, m)
				select {
				case <-said:
				default:
					t.Errorf("nobody was woken for %+v", m)
				}
			}
			if g := w.s.Status().Generations[0]; g.Text != "warm" || g.Extended <= 0 {
				t.Errorf("%+v", g)
			}
			select {
			case <-w.s.Said():
				t.Error("it rang without a message")
			default:
			}
		},
	})
}

func TestMainPID(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"with READY": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: 2010})
			if e := w.event("ready"); e.PID != 2010 {
				t.Errorf("%+v", e)
			}
			w.wantEvents("mainpid", "in the place of pid 1001")
			w.ends(1001, proc.Exit{Code: 0}) // it has daemonized
			w.wantStates("1 ready")
			w.ends(2010, proc.Exit{Code: 5})
			w.wantExit(5)
		},
		"its own": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: 1001})
			w.exits(1, 5, 0)
			w.wantExit(5)
		},
		"a stranger's": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: 2020})
			if st := w.s.Status(); st.Counters.IgnoredNotices != 1 || st.Generations[0].PID != 1001 || !st.Ready {
				t.Errorf("%+v", st)
			}
			w.ends(2020, proc.Exit{Code: 5})
			w.wantStates("1 ready")
		},
		"of one that has ended": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: endedPID})
			if st := w.s.Status(); st.Counters.IgnoredNotices != 0 || st.Generations[0].PID != 1001 || !st.Ready {
				t.Errorf("%+v", st)
			}
		},
		"of one that ends before the launched one": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: 2010})
			w.kernel.namedEnds(1)
			w.ends(2010, proc.Exit{Code: 0})
			w.wantStates("1 ready")
			if e := w.event("mainpid"); e.PID != 3001 || e.Cause != "in the place of pid 2010" {
				t.Errorf("%+v", e)
			}
			w.ends(3001, proc.Exit{Code: 7})
			w.wantExit(7)
		},
		"of one that ends when it is to be killed": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: 2010})
			w.kernel.setUndying(true)
			w.signal(syscall.SIGTERM)
			w.pass(defaults.Stop)
			w.kernel.setUndying(false)
			w.kernel.namedEnds(1)
			w.settle()
			w.wantExit(137)
		},
		"twice": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{MainPID: 2010})
			w.says(1, notify.Message{MainPID: 2011})
			w.ends(2010, proc.Exit{Code: 5})
			w.wantStates("1 starting")
			w.ends(2011, proc.Exit{Code: 6})
			w.wantExit(6)
		},
		"in a precondition": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, MainPID: 2010})
			old, now := 1001, 2010
			if _, refused := w.swap(Request{IfPID: &old}); refused != refusedPrecondition {
				t.Errorf("refused: %q", refused)
			}
			if _, refused := w.swap(Request{IfPID: &now}); refused != "" {
				t.Errorf("refused: %q", refused)
			}
		},
	})
}

// ends is the end of a process, as Reap reports it.
func (w *world) ends(pid int, e proc.Exit) {
	w.t.Helper()
	e.PID = pid
	w.kernel.mu.Lock()
	for _, c := range w.kernel.children {
		c.mainEnded = c.mainEnded || c.pid == pid
	}
	w.kernel.exits = append(w.kernel.exits, e)
	w.kernel.poke()
	w.kernel.mu.Unlock()
	w.settle()
}

// event returns the newest event of a kind.
func (w *world) event(kind string) Event {
	w.t.Helper()
	for i := len(w.events) - 1; i >= 0; i-- {
		if w.events[i].Kind == kind {
			return w.events[i]
		}
	}
	w.t.Fatalf("there was no event %q", kind)
	return Event{}
}

// wantEvents fails the test unless there was exactly one event of a kind, with this cause.
func (w *world) wantEvents(kind, cause string) {
	w.t.Helper()
	n := 0
	for _, e := range w.events {
		if e.Kind == kind {
			n++
		}
	}
	if e := w.event(kind); n != 1 || e.Cause != cause {
		w.t.Fatalf("%d events %q, the last one because of %q, want one because of %q", n, kind, e.Cause, cause)
	}
}
