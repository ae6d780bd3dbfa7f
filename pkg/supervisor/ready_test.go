package supervisor

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

var (
	checked    = with(func(c *Config) { c.Check = []string{"/app", "-t"} })
	probedExec = with(func(c *Config) {
		c.Ready = Readiness{Exec: []string{"/probe", "-q", "{generation}/{pid}"}, Interval: 2 * time.Second, Timeout: time.Second}
	})
	probedNet = with(func(c *Config) { c.Ready = Readiness{Interval: 2 * time.Second, Timeout: time.Second} })
	alive     = with(func(c *Config) { c.Ready.Alive = time.Minute })
)

func TestCheck(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"passes, and the app has a start limit of its own": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.wantStates("1 checking")
			w.pass(29 * time.Second)
			w.exits(1, 0, 0)
			w.wantStates("1 starting")
			w.wantLeft(1, 30*time.Second)
			w.ready(1)
			w.wantStates("1 ready")
			w.wantMoves("checking started ready")
			w.wantObserved("ready in 0s", "swap start ok in 29s")
		},
		"the pid is the check's, then the app's": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.ready(1)
			ticket := w.run(v2)
			if ticket.PID != 2002 || w.s.Status().Generations[1].PID != 2002 {
				t.Errorf("ticket %+v, status %+v", ticket, w.s.Status().Generations[1])
			}
			w.serve(2)
			if o := w.outcome(ticket); !o.OK || o.PID != 1002 || o.CurrentPID != 1002 {
				t.Errorf("outcome %+v", o)
			}
		},
		"fails the first start": func(t *testing.T) { w := start(t, checked, v1, nil); w.exits(1, 3, 0); w.wantExit(3) },
		"is killed at the first start": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.killed(1, syscall.SIGSEGV)
			w.wantExit(139)
		},
		"is too slow at the first start": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.pass(30 * time.Second)
			w.wantSignals(1, "check TERM")
			w.exits(1, 0, 0) // it has passed, but too late
			w.wantExit(124)
		},
		"cannot be executed": func(t *testing.T) {
			w := start(t, checked, v1, func(o *Options) {
				o.Launcher.(*kernel).failNext(&proc.StartError{Op: "execute", Path: "/app", Err: syscall.EACCES})
			})
			w.wantExit(126)
			w.wantObserved("swap start failed check in 0s")
		},
		"passes, and the app cannot be executed": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.kernel.failNext(&proc.StartError{Op: "execute", Path: "/app", Err: syscall.EACCES})
			w.exits(1, 0, 0)
			w.wantExit(126)
			w.wantObserved("swap start failed exec in 0s")
		},
		"fails, the answer has its words": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.exits(2, 3, 0)
			w.wantFailed(ticket, "check exited 3")
			if o := w.outcome(ticket); o.ExitCode != 3 || o.PID != 2002 || !slices.Equal(o.Stderr.Lines, []string{"last words of 2"}) {
				t.Errorf("outcome %+v", o)
			}
			w.wantStates("1 ready")
		},
		"fails, the saved command is set aside": func(t *testing.T) {
			w := start(t, checked, v2, func(o *Options) { o.Fallback = &v1 })
			w.exits(1, 3, 0)
			w.wantStates("2 checking")
			if want := []string{"check exited 3"}; !slices.Equal(w.setAside, want) {
				t.Errorf("set aside because of %q, want %q", w.setAside, want)
			}
			w.serve(2)
		},
		"each restart has its own": func(t *testing.T) {
			cfg := checked
			cfg.Restart = RestartAlways
			w := start(t, cfg, v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			w.pass(2 * backoffFirst)
			w.wantStates("2 checking")
			w.exits(2, 1, 0)
			w.wantStates("")
			w.pass(3 * backoffFirst)
			w.serve(3)
		},
		"signals wait for the app": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.signal(syscall.SIGUSR1)
			w.wantSignals(1, "")
			w.exits(1, 0, 0)
			w.wantSignals(1, "USR1")
		},
		"what it leaves behind is the candidate's": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.exits(1, 0, 1)
			w.wantStates("1 starting")
			w.wantSignals(1, "")
			w.exits(1, 3, 1)
			w.wantSignals(1, "others TERM")
			w.wantStates("1 stopping")
			w.othersGo(1)
			w.wantExit(3)
		},
		"is ready when the app's exec succeeded": func(t *testing.T) {
			cfg := checked
			cfg.Ready.None = true
			w := start(t, cfg, v1, nil)
			w.wantStates("1 checking")
			w.exits(1, 0, 0)
			w.wantStates("1 ready")
		},
		"a pause is not charged": func(t *testing.T) {
			w := start(t, checked, v1, nil)
			w.pass(29 * time.Second)
			w.pause(time.Minute)
			w.wantStates("1 checking")
		},
	})
}

func TestAlive(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"is ready, whatever the start limit": func(t *testing.T) {
			w := start(t, alive, v1, nil)
			w.pass(time.Minute - 1)
			w.wantStates("1 starting")
			w.pass(1)
			w.wantStates("1 ready")
		},
		"dies before": func(t *testing.T) {
			w := start(t, alive, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.pass(time.Minute - 1)
			w.exits(2, 0, 0)
			w.wantFailed(ticket, "exited 0 before ready")
			w.pass(time.Minute)
			w.wantStates("1 ready")
		},
		"is aborted before": func(t *testing.T) {
			w := start(t, alive, v1, nil)
			w.serve(1)
			w.run(v2)
			w.abort()
			w.pass(time.Minute)
			w.wantStates("1 ready")
		},
		"a pause does not count": func(t *testing.T) {
			w := start(t, alive, v1, nil)
			w.pass(30 * time.Second)
			w.pause(time.Hour)
			w.wantStates("1 starting")
			w.pass(30 * time.Second)
			w.wantStates("1 ready")
		},
		"it still can say that it has failed": func(t *testing.T) {
			w := start(t, alive, v1, nil)
			w.says(1, notify.Message{Ready: true})
			w.wantStates("1 starting")
			w.says(1, notify.Message{Failed: "no database"})
			w.wantStates("1 stopping")
		},
		"the check has a start limit": func(t *testing.T) {
			cfg := alive
			cfg.Check = checked.Check
			w := start(t, cfg, v1, nil)
			w.wantLeft(1, 30*time.Second)
		},
	})
}

func TestProbes(t *testing.T) {
	refused := errors.New("GET http://127.0.0.1:8081/: connection refused")
	stories(t, map[string]func(*testing.T){
		"only one is under way": func(t *testing.T) {
			w := start(t, probedNet, v1, nil)
			w.wantProbes(1, 1)
			w.pass(20 * time.Second) // ten intervals
			w.wantProbes(1, 1)
			w.probeEnds(1, nil)
			w.wantStates("1 ready")
		},
		"an interval begins with the last one": func(t *testing.T) {
			w := start(t, probedNet, v1, nil)
			w.pass(time.Second)
			w.probeEnds(1, refused)
			if got := w.s.Status().Generations[0].Text; got != refused.Error() {
				t.Errorf("the status is %q", got)
			}
			w.pass(time.Second - 1)
			w.wantProbes(1, 1)
			w.pass(1)
			w.wantProbes(1, 2)
			w.pass(5 * time.Second)
			w.probeEnds(1, refused) // it took longer than an interval
			w.wantProbes(1, 3)
			w.probeEnds(1, nil)
			w.wantStates("1 ready")
			w.pass(time.Minute)
			w.wantProbes(1, 3)
		},
		"none succeeds": func(t *testing.T) {
			w := start(t, probedNet, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.probeEnds(2, refused)
			w.pass(30 * time.Second)
			w.wantFailed(ticket, "not ready in time (30s): "+refused.Error())
			w.probeEnds(2, nil)
			w.wantStates("1 ready, 2 stopping")
		},
		"none has answered": func(t *testing.T) {
			w := start(t, probedNet, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.pass(30 * time.Second)
			w.wantFailed(ticket, "not ready in time (30s)")
		},
		"the app's own word does not count": func(t *testing.T) {
			w := start(t, probedNet, v1, nil)
			w.says(1, notify.Message{Ready: true, HasStatus: true, Status: "warming up"})
			w.probeEnds(1, refused)
			w.wantStates("1 starting")
			if st := w.s.Status(); st.Counters.IgnoredNotices != 1 || st.Generations[0].Text != "warming up" {
				t.Errorf("%+v", st)
			}
		},
		"they begin when the check has passed": func(t *testing.T) {
			cfg := probedNet
			cfg.Check = checked.Check
			w := start(t, cfg, v1, nil)
			w.pass(10 * time.Second)
			w.wantProbes(1, 0)
			w.exits(1, 0, 0)
			w.wantProbes(1, 1)
		},
		"a candidate that dies is probed no more": func(t *testing.T) {
			w := start(t, probedExec, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.exits(2, 3, 0)
			w.wantFailed(ticket, "exited 3 before ready")
			w.wantSignals(2, "probe group KILL")
			w.pass(time.Minute)
			w.wantStates("1 ready")
		},
		"a program says no and then yes": func(t *testing.T) {
			w := start(t, probedExec, v1, nil)
			w.probeEnds(1, refused)
			w.wantStates("1 starting")
			w.pass(2 * time.Second)
			w.probeEnds(1, nil)
			w.wantStates("1 ready")
			w.wantSignals(1, "")
			if got, want := w.kernel.probes[1].argv, []string{"/probe", "-q", "1/1001"}; !slices.Equal(got, want) {
				t.Errorf("the probe was %q, want %q", got, want)
			}
		},
		"a program takes too long": func(t *testing.T) {
			w := start(t, probedExec, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.pass(30 * time.Second)
			w.wantFailed(ticket, "not ready in time (30s): exec:/probe took longer than 1s (-ready-timeout): last words of 2")
			if got := w.outcome(ticket).Stderr.Lines; !slices.Equal(got, []string{"last words of 2", "probe: last words of 2"}) {
				t.Errorf("stderr %q", got)
			}
			if got := len(w.kernel.probes); got != 16 { // the first generation's, and one every 2 s
				t.Errorf("%d probes", got)
			}
		},
		"a program fails": func(t *testing.T) {
			w := start(t, probedExec, v1, nil)
			w.probeEnds(1, refused)
			if got := w.s.Status().Generations[0].Text; got != "exec:/probe exited 2: last words of 1" {
				t.Errorf("the status is %q", got)
			}
		},
		"a program cannot be started, and then it can": func(t *testing.T) {
			w := start(t, probedExec, v1, func(o *Options) {
				o.Launcher.(*kernel).failProbe = &proc.StartError{Op: "find", Path: "probe", Err: syscall.ENOENT}
			})
			if got := w.s.Status().Generations[0].Text; !strings.HasPrefix(got, "cannot find probe") {
				t.Errorf("the status is %q", got)
			}
			w.pass(2 * time.Second)
			w.serve(1)
		},
		"aborted with slow last words of a probe under way": func(t *testing.T) {
			w := start(t, probedExec, v1, nil)
			w.serve(1)
			w.run(v2)
			w.kernel.probes[1].tailTakes = time.Second
			w.probeEnds(2, refused)
			w.abort()
			w.killed(2, syscall.SIGTERM)
			w.pass(time.Minute)
			w.wantStates("1 ready")
		},
		"the one that served dies": func(t *testing.T) {
			w := start(t, probedNet, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(1, 3, 0)
			w.wantStates("2 starting")
			w.probeEnds(2, nil)
			w.wantStates("2 ready")
		},
	})
}

// wantMoves fails the test unless the moves so far were these.
func (w *world) wantMoves(want string) {
	w.t.Helper()
	var kinds []string
	for _, e := range w.events {
		kinds = append(kinds, e.Kind)
	}
	if got := strings.Join(kinds, " "); got != want {
		w.t.Errorf("events %q, want %q", got, want)
	}
}

// wantObserved fails the test unless the observer was told all of these.
func (w *world) wantObserved(want ...string) {
	w.t.Helper()
	w.observed.mu.Lock()
	defer w.observed.mu.Unlock()
	for _, line := range want {
		if !slices.Contains(w.observed.told, line) {
			w.t.Errorf("the observer was not told %q but %q", line, w.observed.told)
		}
	}
}

// wantProbes fails the test unless generation n was asked so often over the network.
func (w *world) wantProbes(n, want int) {
	w.t.Helper()
	if got := w.prober.times(n); got != want {
		w.t.Fatalf("%d probes of generation %d, want %d", got, n, want)
	}
}
