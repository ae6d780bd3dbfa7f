package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// defaults are crank's own.
var defaults = Config{Start: 30 * time.Second, Stop: 30 * time.Second, Settle: time.Second, MaxDraining: 8}

// with returns the defaults with a change.
func with(change func(*Config)) Config {
	c := defaults
	change(&c)
	return c
}

// stories runs each in a bubble of its own.
func stories(t *testing.T, all map[string]func(t *testing.T)) {
	t.Helper()
	for name, story := range all {
		t.Run(name, func(t *testing.T) { synctest.Test(t, story) })
	}
}

// wantLeft fails the test unless generation n has want until its deadline.
func (w *world) wantLeft(n int, want time.Duration) {
	w.t.Helper()
	for _, g := range w.s.Status().Generations {
		if g.Generation == n {
			if got := time.Until(g.Deadline); got != want {
				w.t.Fatalf("generation %d has %v left, want %v", n, got, want)
			}
			return
		}
	}
	w.t.Fatalf("generation %d is not there: %s", n, w.states())
}

func TestFirstStart(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"is ready and ends": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.wantStates("1 starting")
			w.ready(1)
			w.wantStates("1 ready")
			if !w.kernel.child(1).promoted || !slices.Equal(w.saver.saved, []string{"--v1"}) {
				t.Fatalf("promoted %v, saved %q", w.kernel.child(1).promoted, w.saver.saved)
			}
			w.exits(1, 7, 0)
			w.wantExit(7)
		},
		"is ready when its exec succeeded": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Ready.None = true }), v1, nil)
			w.wantStates("1 ready")
			w.swap(Request{})
			w.wantStates("1 ready, 2 settling")
			w.pass(time.Second)
			w.wantStates("1 stopping, 2 ready")
		},
		"exits":       func(t *testing.T) { w := start(t, defaults, v1, nil); w.exits(1, 3, 0); w.wantExit(3) },
		"exits 0":     func(t *testing.T) { w := start(t, defaults, v1, nil); w.exits(1, 0, 0); w.wantExit(1) },
		"is killed":   func(t *testing.T) { w := start(t, defaults, v1, nil); w.killed(1, syscall.SIGKILL); w.wantExit(137) },
		"leaves some": func(t *testing.T) { w := start(t, defaults, v1, nil); w.exits(1, 3, 1); w.othersGo(1); w.wantExit(3) },
		"says ERRNO": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Errno: 13, Ready: true})
			w.wantStates("1 stopping")
			w.exits(1, 9, 0)
			w.wantExit(9)
		},
		"is not ready in time": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.OKCodes = map[int]bool{124: true, 143: true} }), v1, nil)
			w.pass(30*time.Second - 1)
			w.wantStates("1 starting")
			w.pass(1)
			w.wantSignals(1, "TERM")
			w.wantLeft(1, 5*time.Second)
			w.killed(1, syscall.SIGTERM)
			w.wantExit(124)
		},
		"has its own limits": func(t *testing.T) {
			w := start(t, defaults, Command{Argv: v1.Argv, Start: time.Second, Stop: 2 * time.Second}, nil)
			w.pass(time.Second)
			w.wantLeft(1, 2*time.Second)
			w.pass(2 * time.Second)
			w.wantSignals(1, "TERM group KILL")
			w.wantExit(124)
		},
		"has no limit": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Start = 0 }), v1, nil)
			w.pass(time.Hour)
			w.wantStates("1 starting")
		},
		"is aborted, crank waits": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.abort()
			w.killed(1, syscall.SIGTERM)
			w.wantStates("")
			if got := w.s.Status().Reason; got != "no generation runs" {
				t.Errorf("Reason %q", got)
			}
			w.swap(Request{})
			w.serve(2)
		},
		"is replaced": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.swap(Request{Trigger: TriggerRun, Change: Change(v2), Force: true})
			w.wantStates("1 stopping, 2 starting")
			w.wantLeft(1, 5*time.Second)
			w.exits(2, 1, 0)
			w.wantStates("1 stopping") // a request that fails does not end crank
		},
		"HUP while it fails": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.signal(syscall.SIGHUP)
			w.exits(1, 3, 0)
			w.wantExit(3)
			if got := w.s.Status().Counters.DroppedHUPs; got != 1 {
				t.Errorf("%d HUPs were dropped, want 1", got)
			}
		},
	})
}

func TestCannotStart(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"not found", &proc.StartError{Op: "find", Path: "app", Err: fs.ErrNotExist}, 127},
		{"not executable", &proc.StartError{Op: "execute", Path: "/app", Err: syscall.EACCES}, 126},
		{"no descriptors", syscall.EMFILE, 125},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, defaults, v1, func(o *Options) { o.Launcher.(*kernel).failNext(c.err) })
				w.wantExit(c.want)
			})
			synctest.Test(t, func(t *testing.T) { // with one that serves it is only an answer
				w := start(t, defaults, v1, nil)
				w.serve(1)
				w.kernel.failNext(c.err)
				ticket := w.run(v2)
				w.wantFailed(ticket, c.err.Error())
				if o := w.outcome(ticket); ticket.PID != 0 || o.ExitCode != c.want || o.Current != 1 || o.CurrentPID != 1001 {
					t.Errorf("ticket %+v, outcome %+v", ticket, o)
				}
				w.wantStates("1 ready")
			})
		})
	}
}

func TestFallback(t *testing.T) {
	saved := func(o *Options) { o.Fallback, o.Previous = &v1, &v1 }
	stories(t, map[string]func(*testing.T){
		"the saved command fails": func(t *testing.T) {
			w := start(t, defaults, v2, saved)
			w.exits(1, 3, 0)
			w.wantStates("2 starting")
			if got := w.kernel.child(2).command; !got.Equal(v1) {
				t.Errorf("started %v, want the command line's own", got)
			}
			if want := []string{"exited 3 before ready"}; !slices.Equal(w.setAside, want) {
				t.Errorf("set aside because of %q, want %q", w.setAside, want)
			}
			w.serve(2)
			if _, refused := w.swap(Request{Trigger: TriggerRollback}); refused != "no-rollback" {
				t.Errorf("rollback to the command that failed: %q", refused)
			}
		},
		"it cannot be executed": func(t *testing.T) {
			w := start(t, defaults, v2, func(o *Options) { saved(o); o.Launcher.(*kernel).failNext(syscall.EACCES) })
			w.wantStates("2 starting")
		},
		"it is not ready in time": func(t *testing.T) {
			w := start(t, defaults, v2, saved)
			w.pass(defaults.Start)
			w.wantStates("1 stopping, 2 starting")
			w.serve(2)
			w.exits(2, 4, 0)
			w.killed(1, syscall.SIGTERM)
			w.wantExit(4)
		},
		"both fail": func(t *testing.T) {
			w := start(t, defaults, v2, saved)
			w.exits(1, 3, 0)
			w.exits(2, 4, 0)
			w.wantExit(4)
		},
		"it serves, then a restart fails": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartAlways }), v2, saved)
			w.serve(1)
			w.exits(1, 3, 0)
			w.pass(2 * backoffFirst)
			w.exits(2, 3, 0)
			w.pass(3 * backoffFirst)
			if got := w.kernel.child(3).command; !got.Equal(v2) || w.setAside != nil {
				t.Errorf("started %v, set aside %q", got, w.setAside)
			}
		},
	})
}

// TestRoom: with -memory-check refuse nobody is started beside the one that serves.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no room")
		w := start(t, defaults, v1, func(o *Options) { o.Room = func() error { return full } })
		w.serve(1) // there is room for one
		if _, refused := w.swap(Request{Trigger: TriggerReload}); refused != refusedMemory {
			t.Errorf("got %q", refused)
		}
		w.signal(syscall.SIGHUP)
		w.wantStates("1 ready")
		full = nil
		w.signal(syscall.SIGHUP)
		w.wantStates("1 ready, 2 starting")
	})
}

// TestReportedFailure: an app that says that it has failed, and then ends in good order, is no success.
func TestReportedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, defaults, v1, nil)
		w.says(1, notify.Message{Failed: "no database"})
		w.exits(1, 0, 0)
		w.wantExit(1)
	})
}

// TestNeverReady: a first start that ends before it is ready is never a success, whatever its exit code. A requested stop may be one.
func TestNeverReady(t *testing.T) {
	okCodes := with(func(c *Config) { c.OKCodes = map[int]bool{3: true, 127: true, 143: true} })
	readiness := func(r Readiness) Config { return with(func(c *Config) { c.Ready = r }) }
	type steps = func(*world)
	exits := func(code int) steps { return func(w *world) { w.exits(1, code, 0) } }
	for name, c := range map[string]struct {
		cfg  Config
		do   steps
		want int
	}{
		"notify":                       {defaults, exits(0), 1},
		"none: its exec succeeded":     {readiness(Readiness{None: true}), exits(0), 0},
		"alive":                        {readiness(Readiness{Alive: time.Hour}), exits(0), 1},
		"exec":                         {readiness(Readiness{Exec: []string{"/probe"}, Interval: time.Second, Timeout: time.Second}), exits(0), 1},
		"over the network":             {readiness(probes), exits(0), 1},
		"leaves a daemon behind":       {defaults, func(w *world) { w.exits(1, 0, 1); w.othersGo(1) }, 1},
		"restart always":               {with(func(c *Config) { c.Restart = RestartAlways }), exits(0), 1},
		"restart on failure":           {with(func(c *Config) { c.Restart = RestartOnFailure }), exits(0), 1},
		"an ok code":                   {okCodes, exits(3), 1},
		"an ok code, and it was ready": {okCodes, func(w *world) { w.serve(1); w.exits(1, 3, 0) }, 0},
		"another code":                 {okCodes, exits(4), 4},
		"the signal of an ok code":     {okCodes, func(w *world) { w.killed(1, syscall.SIGTERM) }, 1},
		"says that it failed, then exits with an ok code": {okCodes, func(w *world) {
			w.says(1, notify.Message{Failed: "no database"})
			w.exits(1, 3, 0)
		}, 1},
		"the check exits with an ok code": {with(func(c *Config) { c.OKCodes = okCodes.OKCodes; c.Check = []string{"/check"} }), exits(3), 1},
		"stopped while it starts":         {defaults, func(w *world) { w.signal(syscall.SIGTERM); w.exits(1, 0, 0) }, 0},
		"stopped, an ok code":             {okCodes, func(w *world) { w.signal(syscall.SIGTERM); w.killed(1, syscall.SIGTERM) }, 0},
		"stopped, another code":           {defaults, func(w *world) { w.signal(syscall.SIGTERM); w.exits(1, 4, 0) }, 4},
		"aborted, then stopped": {defaults, func(w *world) {
			w.abort()
			w.exits(1, 0, 0)
			w.signal(syscall.SIGTERM)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, c.cfg, v1, nil)
				c.do(w)
				w.wantExit(c.want)
			})
		})
	}
	t.Run("of a request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.run(v1)
			w.exits(1, 0, 0)
			w.wantStates("") // a request that fails does not end crank
			w.signal(syscall.SIGTERM)
			w.wantExit(0)
		})
	})
	t.Run("the saved command, then the command line's own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, defaults, v2, func(o *Options) { o.Fallback = &v1 })
			w.exits(1, 0, 0)
			w.wantStates("2 starting")
			w.exits(2, 0, 0)
			w.wantExit(1)
		})
	})
	t.Run("cannot be found, an ok code", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			missing := &proc.StartError{Op: "find", Path: "app", Err: fs.ErrNotExist}
			w := start(t, okCodes, v1, func(o *Options) { o.Launcher.(*kernel).failNext(missing) })
			w.wantExit(1)
		})
	})
}

// TestStoppedTogether: if TERM reaches the app as well, as with systemd's KillMode=control-group, the app's exit is not a failed start,
// however crank learns of it.
func TestStoppedTogether(t *testing.T) {
	exits := func(w *world) { w.kernel.end(1, proc.Exit{}) }
	for name, does := range map[string]struct{ meanwhile, then func(*world) }{
		"it exits":                    {exits, nil},
		"it exits, and a tick is due": {func(w *world) { time.Sleep(tick); exits(w) }, nil},
		"it says STOPPING=1":          {func(w *world) { go w.s.Notice(1, notify.Message{Stopping: true}) }, exits},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // Go chooses at random between channels that are ready
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					w := start(t, defaults, v1, func(o *Options) { o.HungUp = func() bool { <-release; return false } })
					w.signals <- syscall.SIGHUP // the loop is busy meanwhile
					synctest.Wait()
					w.signals <- syscall.SIGTERM
					does.meanwhile(w)
					synctest.Wait()
					close(release)
					w.settle()
					if does.then != nil {
						does.then(w)
						w.settle()
					}
					w.wantExit(0)
				})
			}
		})
	}
}

// TestExitCode goes through every way in which a process can end.
func TestExitCode(t *testing.T) {
	ok := map[int]bool{3: true, 143: true, 255: true}
	s := New(Config{OKCodes: ok}, Options{})
	want := func(code int) int {
		if ok[code] {
			return 0
		}
		return code
	}
	for code := range 256 {
		if got := s.codeOf(&generation{exit: &proc.Exit{Code: code}}); got != want(code) {
			t.Errorf("exit status %d: %d, want %d", code, got, want(code))
		}
	}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		g := &generation{exit: &proc.Exit{Code: -1, Signal: sig}}
		if got, want := s.codeOf(g), want(128+int(sig)); got != want {
			t.Errorf("%v: %d, want %d", sig, got, want)
		}
		g.failure, g.trigger = reasonTimeout, TriggerStart
		if got := s.codeOf(g); got != 124 {
			t.Errorf("not ready in time, %v: %d", sig, got)
		}
		g.trigger = TriggerRun
		if got, want := s.codeOf(g), want(128+int(sig)); got != want {
			t.Errorf("request not ready in time, %v: %d, want %d", sig, got, want)
		}
	}
	if got := s.codeOf(&generation{child: &child{}}); got != 137 {
		t.Errorf("killed, and not gone: %d, want 137", got)
	}
}

// TestWhoseExitCode is the exit code where there was more than one generation.
func TestWhoseExitCode(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"stopped with nothing running": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.signal(syscall.SIGTERM)
			w.wantExit(0)
		},
		"stopped after a request failed": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.run(v1)
			w.exits(1, 5, 0)
			w.wantStates("")
			w.signal(syscall.SIGTERM)
			w.wantExit(5)
		},
		"a failed candidate does not count": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(2, 5, 0)
			w.exits(1, 6, 0)
			w.wantExit(6)
		},
		"the newest that was current counts, not the last to end": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.serve(2)
			w.signal(syscall.SIGTERM)
			w.exits(2, 6, 0)
			w.exits(1, 7, 0)
			w.wantExit(6)
		},
		"stopped between two restarts": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartAlways }), v1, nil)
			w.serve(1)
			w.exits(1, 8, 0)
			w.signal(syscall.SIGTERM)
			w.wantExit(8)
		},
		"ok codes": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.OKCodes = map[int]bool{143: true} }), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGTERM)
			w.killed(1, syscall.SIGTERM)
			w.wantExit(0)
		},
	})
}

func TestPreconditions(t *testing.T) {
	is := func(n int) *int { return &n }
	for _, c := range []struct {
		name  string
		reach func(*world)
		r     Request
		want  string
	}{
		{"none serves, 0", func(*world) {}, Request{IfGeneration: is(0)}, ""},
		{"none serves, 1", func(*world) {}, Request{IfGeneration: is(1)}, "precondition"},
		{"none serves, a pid", func(*world) {}, Request{IfPID: is(1001)}, "precondition"},
		{"one serves, 0", func(w *world) { w.run(v1); w.ready(1) }, Request{IfGeneration: is(0)}, "precondition"},
		{"one serves, 1", func(w *world) { w.run(v1); w.ready(1) }, Request{IfGeneration: is(1)}, ""},
		{"one serves, 2", func(w *world) { w.run(v1); w.ready(1) }, Request{IfGeneration: is(2)}, "precondition"},
		{"its pid", func(w *world) { w.run(v1); w.ready(1) }, Request{IfPID: is(1001)}, ""},
		{"another pid", func(w *world) { w.run(v1); w.ready(1) }, Request{IfPID: is(1002)}, "precondition"},
		{"its pid, another generation", func(w *world) { w.run(v1); w.ready(1) }, Request{IfPID: is(1001), IfGeneration: is(2)}, "precondition"},
		{"the candidate is not current", func(w *world) { w.run(v1) }, Request{IfGeneration: is(1), Force: true}, "precondition"},
		{"force does not overrule it", func(w *world) { w.run(v1); w.ready(1) }, Request{IfGeneration: is(2), Force: true}, "precondition"},
		{"it comes before busy", func(w *world) { w.run(v1) }, Request{IfGeneration: is(1)}, "precondition"},
		{"busy", func(w *world) { w.run(v1) }, Request{IfGeneration: is(0)}, "busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, defaults, Command{}, nil)
				c.reach(w)
				before := w.states()
				c.r.Trigger, c.r.Change = TriggerRun, Change(v2)
				if _, got := w.swap(c.r); got != c.want {
					t.Fatalf("got %q, want %q", got, c.want)
				}
				if c.want != "" {
					w.wantStates(before)
					if e := w.events[len(w.events)-1]; e.Kind != "refused" || e.Swap != 0 {
						t.Errorf("newest event %+v, want refused", e)
					}
				}
			})
		})
	}
}

func TestNothingToStart(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"reload": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			if _, got := w.swap(Request{}); got != "no-command" {
				t.Errorf("got %q", got)
			}
		},
		"run without a command": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			if _, got := w.swap(Request{Trigger: TriggerRun, Change: Change{Dir: "/"}}); got != "no-command" {
				t.Errorf("got %q", got)
			}
		},
		"HUP before the first command is current": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.run(v1)
			w.signal(syscall.SIGHUP)
			w.ready(1)
			w.wantStates("1 ready, 2 starting")
		},
		"HUP, and the first command fails": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.run(v1)
			w.signal(syscall.SIGHUP)
			w.exits(1, 1, 0)
			w.wantStates("")
		},
	})
}

func TestForce(t *testing.T) {
	force := Request{Trigger: TriggerRun, Change: Change(v2), Force: true}
	stories(t, map[string]func(*testing.T){
		"a starting one is killed soon": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			first := w.run(v2)
			w.swap(force)
			w.wantFailed(first, "replaced on request of run")
			w.wantLeft(2, 5*time.Second)
			w.pass(5 * time.Second)
			w.wantSignals(2, "TERM group KILL")
			w.wantStates("1 ready, 3 starting")
			w.serve(3)
		},
		"a settling one drains in full": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.StopSignal = syscall.SIGQUIT }), v1, nil)
			w.serve(1)
			first := w.run(v2)
			w.ready(2)
			w.swap(force)
			w.wantFailed(first, "replaced")
			w.wantSignals(2, "QUIT")
			w.wantLeft(2, 30*time.Second)
		},
		"one that fails is told TERM, whatever the stop signal": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.StopSignal = syscall.SIGQUIT }), v1, nil)
			w.serve(1)
			w.run(v2)
			w.ready(2)
			w.says(2, notify.Message{Failed: "no"})
			w.wantSignals(2, "TERM")
			w.wantLeft(2, 5*time.Second)
			w.exits(2, 1, 1)
			w.wantSignals(2, "TERM others TERM")
		},
	})
}

func TestRollback(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"twice returns": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			if _, got := w.swap(Request{Trigger: TriggerRollback}); got != "no-rollback" {
				t.Fatalf("got %q", got)
			}
			w.run(v2)
			w.serve(2)
			w.swap(Request{}) // the same again is nothing to go back to
			w.serve(3)
			for n, want := range map[int]Command{4: v1} {
				w.swap(Request{Trigger: TriggerRollback})
				if got := w.kernel.child(n).command; !got.Equal(want) {
					t.Fatalf("rollback started %v, want %v", got, want)
				}
				w.serve(n)
			}
			w.swap(Request{Trigger: TriggerRollback})
			if got := w.kernel.child(5).command; !got.Equal(v2) {
				t.Fatalf("the second rollback started %v, want %v", got, v2)
			}
			w.serve(5)
			want := []string{"--v1", "--v2 (--v1)", "--v2 (--v1)", "--v1 (--v2)", "--v2 (--v1)"}
			if !slices.Equal(w.saver.saved, want) {
				t.Errorf("saved %q, want %q", w.saver.saved, want)
			}
		},
		"one that fails changes nothing": func(t *testing.T) {
			w := start(t, defaults, v1, func(o *Options) { o.Previous = &v2 })
			w.serve(1)
			w.swap(Request{Trigger: TriggerRollback})
			w.exits(2, 1, 0)
			w.swap(Request{})
			if got := w.kernel.child(3).command; !got.Equal(v1) {
				t.Errorf("a reload started %v, want %v", got, v1)
			}
			w.serve(3)
			w.swap(Request{Trigger: TriggerRollback})
			if got := w.kernel.child(4).command; !got.Equal(v2) {
				t.Errorf("rollback started %v, want %v", got, v2)
			}
		},
	})
}

func TestMaxDraining(t *testing.T) {
	// busy has two that drain, of two.
	busy := func(t *testing.T) *world {
		w := start(t, with(func(c *Config) { c.MaxDraining = 2; c.Stop = time.Hour }), v1, nil)
		w.serve(1)
		for n := 2; n <= 3; n++ {
			w.swap(Request{})
			w.serve(n)
		}
		w.wantStates("1 stopping, 2 stopping, 3 ready")
		return w
	}
	stories(t, map[string]func(*testing.T){
		"a request is refused": func(t *testing.T) {
			w := busy(t)
			if _, got := w.swap(Request{}); got != "draining" {
				t.Errorf("got %q", got)
			}
		},
		"HUP waits": func(t *testing.T) {
			w := busy(t)
			w.signal(syscall.SIGHUP, syscall.SIGHUP)
			w.wantStates("1 stopping, 2 stopping, 3 ready")
			w.exits(2, 0, 0)
			w.wantStates("1 stopping, 3 ready, 4 starting")
			w.serve(4)
			w.pass(time.Minute)
			w.wantStates("1 stopping, 3 stopping, 4 ready")
		},
		"force kills the oldest": func(t *testing.T) {
			w := busy(t)
			if _, got := w.swap(Request{Force: true}); got != "" {
				t.Fatalf("got %q", got)
			}
			w.wantStates("2 stopping, 3 ready, 4 starting")
			w.wantSignals(1, "TERM group KILL")
			w.wantSignals(2, "TERM")
		},
		"one that was killed does not count, though it is still there": func(t *testing.T) {
			w := busy(t)
			w.kernel.setUndying(true)
			w.swap(Request{Force: true})
			w.abort()
			w.swap(Request{})
			w.wantStates("1 stopping, 2 stopping, 3 ready, 4 stopping, 5 starting")
		},
		"it is no reason to serve with none": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.MaxDraining = 1; c.Restart = RestartAlways }), v1, nil)
			w.serve(1)
			w.swap(Request{})
			w.serve(2)
			w.exits(2, 1, 0)
			w.signal(syscall.SIGHUP)
			w.wantStates("1 stopping, 3 starting")
		},
		"failed candidates do not count": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.MaxDraining = 1; c.Stop = time.Hour }), v1, nil)
			w.serve(1)
			w.run(v2)
			w.abort()
			w.run(v2)
			w.wantStates("1 ready, 2 stopping, 3 starting")
		},
	})
}

func TestHUP(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"one swap for a burst, one for all that come meanwhile": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.signal(syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP)
			w.wantStates("1 ready, 2 starting")
			w.signal(syscall.SIGHUP, syscall.SIGHUP)
			w.ready(2)
			w.signal(syscall.SIGHUP)
			w.wantStates("1 ready, 2 settling")
			w.pass(time.Second)
			w.wantStates("1 stopping, 2 ready, 3 starting")
			w.serve(3)
			w.pass(time.Second)
			w.wantStates("1 stopping, 2 stopping, 3 ready")
		},
		"also after a candidate has failed": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.signal(syscall.SIGHUP)
			w.exits(2, 1, 0)
			w.wantStates("1 ready, 3 starting")
			if got := w.kernel.child(3).command; !got.Equal(v1) {
				t.Errorf("started %v: the failed command was never current", got)
			}
		},
		"forward": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.HUP = HUPForward }), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGHUP)
			w.wantSignals(1, "HUP")
			w.wantStates("1 ready")
		},
		"ignore": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.HUP = HUPIgnore }), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGHUP)
			w.wantSignals(1, "")
			w.wantStates("1 ready")
		},
		"the terminal hangs up": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.HUP = HUPIgnore }), v1, nil)
			w.serve(1)
			w.hungUp = true
			w.signal(syscall.SIGHUP)
			w.wantStates("1 stopping")
			w.wantSignals(1, "HUP")
			w.killed(1, syscall.SIGHUP)
			w.wantExit(129)
		},
	})
}

func TestSignals(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"held until there is one": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.signal(syscall.SIGUSR1, syscall.SIGWINCH, syscall.SIGUSR1)
			w.kernel.failNext(syscall.ENOENT)
			w.run(v1)
			w.run(v1)
			w.wantSignals(2, "USR1 WINCH")
			w.serve(2)
			w.run(v2)
			w.wantSignals(3, "")
		},
		"held while a restart is due": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartAlways }), v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			w.signal(syscall.SIGUSR2)
			w.pass(2 * backoffFirst)
			w.wantSignals(2, "USR2")
			w.serve(2)
			w.exits(2, 1, 0)
			w.pass(3 * backoffFirst)
			w.wantSignals(3, "") // it was delivered
		},
		"to the group": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Group = true }), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGUSR1, syscall.SIGTERM)
			w.wantSignals(1, "group USR1 group TERM")
		},
		"a starting one gets them if none serves": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(1, 0, 0)
			w.signal(syscall.SIGUSR1)
			w.wantSignals(2, "USR1")
		},
		"at the end the one that served last gets them": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.signal(syscall.SIGTERM, syscall.SIGUSR1)
			w.wantSignals(1, "TERM USR1")
			w.wantSignals(2, "TERM")
			w.exits(1, 0, 0)
			w.signal(syscall.SIGUSR1)
			w.wantSignals(2, "TERM USR1")
		},
		"all others are forwarded": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			var want []string
			for sig := syscall.Signal(1); sig <= 64; sig++ {
				if sig != syscall.SIGHUP && !slices.Contains(defaultStopOn, sig) && sig != syscall.SIGKILL {
					w.signal(sig)
					want = append(want, strings.TrimPrefix(signalName(sig), "SIG"))
				}
			}
			w.wantSignals(1, strings.Join(want, " "))
		},
	})
}

func TestStopOn(t *testing.T) {
	stops := func(signals ...syscall.Signal) Config { return with(func(c *Config) { c.StopOn = signals }) }
	stories(t, map[string]func(*testing.T){
		"TERM, INT and QUIT are forwarded where they do not stop": func(t *testing.T) {
			w := start(t, stops(syscall.SIGPWR), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGTERM, syscall.SIGINT, syscall.SIGINT, syscall.SIGINT, syscall.SIGQUIT)
			w.wantSignals(1, "TERM INT INT INT QUIT")
			w.run(v2) // it is not refused
			w.serve(2)
		},
		"they are held where there is nobody": func(t *testing.T) {
			w := start(t, stops(syscall.SIGTERM), Command{}, nil)
			w.signal(syscall.SIGQUIT)
			w.run(v1)
			w.serve(1)
			w.wantSignals(1, "QUIT")
		},
		"another signal stops, and is passed on": func(t *testing.T) {
			w := start(t, stops(syscall.SIGPWR), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGPWR)
			w.wantSignals(1, "PWR")
			w.wantLeft(1, 30*time.Second)
			w.exits(1, 7, 0)
			w.wantExit(7)
		},
		"none stops": func(t *testing.T) {
			w := start(t, stops([]syscall.Signal{}...), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGTERM)
			w.wantSignals(1, "TERM")
			w.exits(1, 0, 0)
			w.wantExit(0)
		},
		"a hang-up stops all the same": func(t *testing.T) {
			w := start(t, stops(syscall.SIGTERM), v1, func(o *Options) { o.HungUp = func() bool { return true } })
			w.serve(1)
			w.signal(syscall.SIGHUP)
			w.wantSignals(1, "HUP")
			w.wantLeft(1, 30*time.Second)
			w.exits(1, 0, 0)
			w.wantExit(0)
		},
	})
}

func TestStopSignal(t *testing.T) {
	for _, c := range []struct {
		setting, stopped syscall.Signal // of -stop-signal, 0 is same
		swap, stop       string
	}{
		{0, syscall.SIGTERM, "TERM", "TERM"},
		{0, syscall.SIGINT, "TERM", "INT"},
		{0, syscall.SIGQUIT, "TERM", "QUIT"},
		{syscall.SIGUSR1, syscall.SIGTERM, "USR1", "USR1"},
		{syscall.SIGUSR1, syscall.SIGINT, "USR1", "USR1"},
	} {
		t.Run(fmt.Sprint(c.setting, c.stopped), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, with(func(cfg *Config) { cfg.StopSignal = c.setting }), v1, nil)
				w.serve(1)
				w.swap(Request{})
				w.serve(2)
				w.swap(Request{})
				w.ready(3)
				w.kernel.child(2).setOthers(1)
				w.signal(c.stopped)
				w.wantSignals(1, c.swap)
				w.wantSignals(2, c.stop)
				w.wantSignals(3, c.stop) // it was settling, and drains like the current one
				w.wantLeft(3, 30*time.Second)
				w.killed(2, syscall.SIGTERM)
				w.wantSignals(2, c.stop+" others "+c.stop)
			})
		})
	}
}

func TestRestart(t *testing.T) {
	always := with(func(c *Config) { c.Restart = RestartAlways })
	// left is the time until the next restart.
	left := func(w *world) time.Duration { return time.Until(w.s.Status().RestartAt) }
	stories(t, map[string]func(*testing.T){
		"backoff doubles, and begins again after a minute": func(t *testing.T) {
			w := start(t, always, v1, nil)
			die := func(n int, nominal time.Duration) {
				t.Helper()
				w.exits(n, 1, 0)
				if got := left(w); got < nominal*8/10 || got > nominal*12/10 {
					t.Fatalf("restart %d in %v, want %v ±20 %%", n, got, nominal)
				}
				w.pass(left(w))
				w.wantStates(fmt.Sprintf("%d starting", n+1))
			}
			w.serve(1)
			nominal := backoffFirst
			for n := 1; n <= 12; n++ {
				die(n, nominal)
				nominal = min(2*nominal, backoffMax)
			}
			w.ready(13)
			w.pass(time.Minute - 1)
			die(13, backoffMax)
			w.ready(14)
			w.pass(time.Minute)
			die(14, backoffFirst)
		},
		"not ready meanwhile, and the reason is said": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 9, 0)
			if st := w.s.Status(); st.Ready || st.Reason != "generation 1 exited 9 and is started again soon" || !st.EverCurrent {
				t.Errorf("status %+v", st)
			}
		},
		"on-failure, exit 0": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartOnFailure }), v1, nil)
			w.serve(1)
			w.exits(1, 0, 0)
			w.wantExit(0)
		},
		"on-failure, ok code": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartOnFailure; c.OKCodes = map[int]bool{3: true} }), v1, nil)
			w.serve(1)
			w.exits(1, 3, 0)
			w.wantExit(0)
		},
		"on-failure, exit 1": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartOnFailure }), v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			w.pass(2 * backoffFirst)
			w.wantStates("2 starting")
			w.serve(2)
			if o := w.s.Status().LastSwap; !o.OK || o.Trigger != TriggerRestart {
				t.Errorf("outcome %+v", o)
			}
		},
		"always, exit 0": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 0, 0)
			w.pass(2 * backoffFirst)
			w.wantStates("2 starting")
		},
		"never for the first start": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.exits(1, 1, 0)
			w.wantExit(1)
		},
		"a request starts at once, and if it fails backoff goes on": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			ticket := w.run(v2)
			w.wantStates("2 starting")
			w.exits(2, 1, 0)
			w.wantFailed(ticket, "exited 1")
			if got := left(w); got < 160*time.Millisecond || got > 240*time.Millisecond {
				t.Errorf("restart in %v", got)
			}
			w.pass(left(w))
			if got := w.kernel.child(3).command; !got.Equal(v1) {
				t.Errorf("restarted %v", got)
			}
		},
		"HUP starts at once": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			w.signal(syscall.SIGHUP)
			w.wantStates("2 starting")
			w.ready(2)
			w.pass(time.Second)
			w.wantStates("2 ready")
		},
		"what was left behind has a second": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 1, 2)
			w.wantLeft(1, time.Second)
			w.pass(time.Second - 1)
			w.wantStates("1 stopping")
			w.wantSignals(1, "others TERM")
			w.pass(1)
			w.wantSignals(1, "others TERM others KILL")
			w.wantStates("1 stopping") // while it lives, the next one would have no stdin
			w.pass(lookInterval)
			w.wantStates("2 starting")
		},
		"a pause is not charged to what was left behind": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 1, 2)
			w.pass(time.Second / 2)
			w.pause(time.Minute)
			w.wantStates("1 stopping")
			w.pass(time.Second / 2)
			w.wantSignals(1, "others TERM others KILL")
			w.wantStates("1 stopping")
			w.pass(lookInterval)
			w.wantStates("2 starting")
		},
		"what survives SIGKILL is not waited for": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.kernel.setUndying(true)
			w.exits(1, 1, 2)
			w.pass(time.Second + killGrace - 1)
			w.wantStates("1 stopping")
			w.pass(lookSoon)
			w.wantStates("1 stopping, 2 starting")
			w.kernel.setUndying(false)
			w.othersGo(1)
			w.wantStates("2 starting")
		},
		"it is not waited for longer than it is there": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.exits(1, 1, 2)
			w.pass(2 * backoffFirst)
			w.wantStates("1 stopping")
			w.othersGo(1)
			w.pass(lookInterval)
			w.wantStates("2 starting")
		},
		"a second also where a candidate failed after its death": func(t *testing.T) {
			w := start(t, always, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(1, 1, 2)
			w.wantLeft(1, 30*time.Second)
			w.exits(2, 1, 0)
			w.wantLeft(1, time.Second)
			w.pass(time.Second)
			w.pass(lookInterval)
			w.wantStates("3 starting")
		},
		"a minute also counts where a candidate is starting": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartAlways; c.Start = 0 }), v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			w.pass(left(w))
			w.serve(2)
			w.pass(time.Minute)
			w.run(v2)
			w.exits(2, 1, 0)
			w.exits(3, 1, 0)
			if got := left(w); got > 120*time.Millisecond {
				t.Errorf("restart in %v, want about 0.1s", got)
			}
		},
	})
}

// TestCurrentDies is its end while a candidate exists.
func TestCurrentDies(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"the starting one is current as soon as it is ready": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.exits(1, 4, 0)
			if st := w.s.Status(); st.Ready || st.Reason != "generation 2 is starting" {
				t.Errorf("status %+v", st)
			}
			w.ready(2)
			w.wantStates("2 ready")
			if o := w.outcome(ticket); !o.OK || o.From != 1 || o.Current != 2 || o.ExitCode != -1 {
				t.Errorf("outcome %+v", o)
			}
		},
		"the starting one fails as well": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(1, 4, 0)
			w.exits(2, 5, 0)
			w.wantExit(4)
		},
		"the starting one is replaced": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(1, 4, 0)
			w.swap(Request{Force: true})
			w.wantStates("2 stopping, 3 starting")
			w.exits(2, 5, 0)
			w.exits(3, 6, 0)
			w.wantExit(4)
		},
		"the settling one takes over": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.ready(2)
			w.exits(1, 4, 0)
			w.wantStates("2 ready")
			if o := w.outcome(ticket); !o.OK {
				t.Errorf("outcome %+v", o)
			}
			if e := w.events[len(w.events)-1]; e.Kind != "promoted" {
				t.Errorf("newest event %+v", e)
			}
			w.exits(2, 6, 0)
			w.wantExit(6)
		},
		"alone: leaving ones keep the smaller of what they have and -stop": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Stop = 10 * time.Second }), v1, nil)
			w.serve(1)
			w.swap(Request{Trigger: TriggerRun, Change: Change{Stop: time.Minute}})
			w.serve(2)
			w.pass(4 * time.Second)
			w.swap(Request{Trigger: TriggerRun, Change: Change{Stop: 20 * time.Second}})
			w.serve(3)
			w.exits(3, 4, 0)
			w.wantLeft(1, 5*time.Second)
			w.wantLeft(2, time.Minute) // it is the largest -stop itself
			w.wantSignals(1, "TERM")
		},
	})
}

func TestLeftovers(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"asked once, killed at the deadline": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.serve(2)
			w.pass(10 * time.Second)
			w.exits(1, 0, 3)
			w.wantLeft(1, 20*time.Second)
			if got := w.s.Status().Generations[0].Others; got != 3 {
				t.Errorf("%d others, want 3", got)
			}
			w.pass(20*time.Second - 1)
			w.wantSignals(1, "TERM others TERM")
			w.pass(time.Second)
			w.wantSignals(1, "TERM others TERM others KILL")
			w.wantStates("2 ready")
		},
		"of a failed one": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.exits(2, 1, 3)
			w.wantFailed(ticket, "exited 1")
			w.wantLeft(2, 5*time.Second)
		},
		"they are found gone at the next SIGCHLD": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.serve(2)
			w.exits(1, 0, 1)
			w.kernel.child(1).setOthers(0)
			w.kernel.adopted()
			w.pass(lookSoon)
			w.wantStates("2 ready")
		},
		"a storm of SIGCHLD does not put it off": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.serve(2)
			w.exits(1, 0, 1)
			w.kernel.child(1).setOthers(0)
			for range 20 {
				w.kernel.adopted()
				w.pass(lookSoon / 2)
			}
			w.wantStates("2 ready")
		},
		"a killed one's others are killed": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.serve(2)
			w.kernel.setUndying(true)
			w.kernel.child(1).setOthers(1)
			w.pass(30 * time.Second)
			w.wantSignals(1, "TERM group KILL others KILL")
			w.exits(1, 0, 1)
			w.pass(lookInterval)
			w.wantStates("1 stopping, 2 ready")
			w.kernel.setUndying(false) // say, it forks faster than it is killed
			w.pass(2 * lookInterval)
			w.wantStates("2 ready")
		},
		"of the current one, an older one being gone": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.abort()
			w.exits(1, 1, 1)
			w.wantStates("1 stopping, 2 stopping") // in order, although 1 came to it later
			if leaving := w.s.leaving; !slices.IsSortedFunc(leaving, byNumber) {
				t.Errorf("leaving: %v", leaving)
			}
		},
	})
}

func TestShutdown(t *testing.T) {
	delayed := with(func(c *Config) { c.DrainDelay = 10 * time.Second })
	stories(t, map[string]func(*testing.T){
		"a starting candidate has a second": func(t *testing.T) {
			w := start(t, delayed, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.signal(syscall.SIGINT)
			w.wantFailed(ticket, "crank is shutting down")
			w.wantSignals(2, "TERM")
			w.wantLeft(2, time.Second)
			w.wantStates("1 ready, 2 stopping")
		},
		"nobody waits for the delay if none serves": func(t *testing.T) {
			w := start(t, delayed, v1, nil)
			w.signal(syscall.SIGTERM)
			w.wantLeft(1, time.Second)
			w.pass(time.Second)
			w.wantExit(137)
		},
		"one deadline: the delay and the largest -stop": func(t *testing.T) {
			w := start(t, delayed, Command{Argv: v1.Argv, Stop: time.Minute}, nil)
			w.serve(1)
			w.swap(Request{Trigger: TriggerRun, Change: Change{Stop: time.Second}})
			w.serve(2)
			w.signal(syscall.SIGTERM)
			w.pass(10 * time.Second)
			w.wantLeft(1, 50*time.Second)
			w.wantLeft(2, time.Second)
			w.pass(time.Second)
			w.wantSignals(2, "TERM group KILL")
			w.wantSignals(1, "TERM")
			w.pass(49 * time.Second)
			w.wantSignals(1, "TERM group KILL") // once
			w.wantExit(137)
		},
		"killed once": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.signal(syscall.SIGTERM)
			w.pass(30 * time.Second)
			w.wantExit(137)
			kills := 0
			for _, e := range w.events {
				if e.Kind == "killed" {
					kills++
				}
			}
			if kills != 1 {
				t.Errorf("%d killed events, want 1", kills)
			}
		},
		"a second TERM skips the delay, a third is forwarded": func(t *testing.T) {
			w := start(t, delayed, v1, nil)
			w.serve(1)
			w.signal(syscall.SIGTERM)
			w.wantSignals(1, "")
			w.signal(syscall.SIGINT)
			w.wantSignals(1, "TERM")
			w.wantLeft(1, 30*time.Second)
			w.signal(syscall.SIGINT)
			w.wantSignals(1, "TERM INT")
		},
		"the current one exits during the delay": func(t *testing.T) {
			w := start(t, delayed, v1, nil)
			w.serve(1)
			w.run(v2)
			w.ready(2)
			w.signal(syscall.SIGINT)
			w.pass(5 * time.Second) // the settling one is not promoted
			w.wantStates("1 ready, 2 settling")
			w.exits(1, 6, 0)
			w.wantStates("2 stopping")
			w.wantSignals(2, "INT")
			w.wantLeft(2, 30*time.Second)
			w.exits(2, 7, 0)
			w.wantExit(6)
		},
		"it leaves some": func(t *testing.T) {
			w := start(t, delayed, v1, nil)
			w.serve(1)
			w.signal(syscall.SIGINT)
			w.exits(1, 6, 1)
			w.wantSignals(1, "others INT")
			w.othersGo(1)
			w.wantExit(6)
		},
		"no restart, though one was due": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartAlways }), v1, nil)
			w.serve(1)
			w.exits(1, 6, 0)
			w.kernel.setStrays(1)
			w.signal(syscall.SIGTERM)
			w.pass(time.Second)
			w.wantStates("")
		},
		"the settling one exits during the delay": func(t *testing.T) {
			w := start(t, delayed, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.ready(2)
			w.signal(syscall.SIGTERM)
			w.exits(2, 7, 0)
			w.wantFailed(ticket, "exited 7 while settling")
			w.wantStates("1 ready")
		},
		"an aborted one is let go during the delay": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.DrainDelay = time.Minute; c.Stop = 10 * time.Second }), v1, nil)
			w.serve(1)
			w.run(v2)
			w.ready(2)
			w.signal(syscall.SIGQUIT)
			w.abort()
			w.wantSignals(2, "QUIT")
			w.wantLeft(2, 10*time.Second)
		},
		"adopted processes are seen off": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setStrays(2)
			w.signal(syscall.SIGTERM)
			w.exits(1, 0, 0)
			if w.ended || !slices.Equal(w.kernel.straySignals(), []syscall.Signal{syscall.SIGTERM}) {
				t.Fatalf("ended %v, strays got %v", w.ended, w.kernel.straySignals())
			}
			w.pass(time.Second)
			if got := w.kernel.straySignals(); len(got) != 1 {
				t.Fatalf("strays got %v", got)
			}
			w.kernel.setStrays(0)
			w.pass(lookInterval)
			w.wantExit(0)
		},
		"adopted processes are killed at the deadline": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setStrays(2)
			w.signal(syscall.SIGTERM)
			w.pass(10 * time.Second)
			w.exits(1, 0, 0)
			w.pass(20*time.Second - 1)
			if w.ended || len(w.kernel.straySignals()) != 1 {
				t.Fatalf("ended %v, strays got %v", w.ended, w.kernel.straySignals())
			}
			w.pass(lookInterval)
			w.wantExit(0)
			if got := w.kernel.straySignals(); !slices.Contains(got, syscall.SIGKILL) {
				t.Fatalf("strays got %v", got)
			}
		},
		"adopted processes that come after the deadline are killed at once": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setStrays(1)
			w.kernel.setUndying(true)
			w.signal(syscall.SIGTERM)
			w.pass(30 * time.Second)
			w.kernel.setUndying(false)
			w.killed(1, syscall.SIGKILL)
			if got := w.kernel.straySignals(); !slices.Equal(got, []syscall.Signal{syscall.SIGKILL}) {
				t.Errorf("strays got %v", got)
			}
			w.pass(lookInterval)
			w.wantExit(137)
		},
		"what cannot be killed is left behind": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setUndying(true)
			w.signal(syscall.SIGTERM)
			w.pass(30 * time.Second)
			w.wantStates("1 stopping")
			w.pass(killGrace)
			w.wantExit(137)
		},
		"it waits for the last words of a candidate": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			ticket := w.run(v1)
			w.kernel.child(1).tailTakes = time.Minute
			w.kernel.setUndying(true)
			w.signal(syscall.SIGTERM)
			w.pass(time.Minute - 1)
			if w.ended {
				t.Fatal("Run has returned before the outcome was there")
			}
			w.pass(1)
			w.wantExit(137)
			w.wantFailed(ticket, "shutting down")
		},
		"the third INT on a terminal kills": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Terminal = true }), v1, nil)
			w.serve(1)
			w.signal(syscall.SIGINT, syscall.SIGINT)
			w.wantSignals(1, "INT INT")
			w.signal(syscall.SIGINT)
			w.wantSignals(1, "INT INT group KILL")
			w.wantExit(137)
		},
		"no INT kills without a terminal": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.signal(syscall.SIGINT, syscall.SIGINT, syscall.SIGINT, syscall.SIGINT)
			w.wantSignals(1, "INT INT INT INT")
		},
		"afterwards everything is refused": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.exits(1, 0, 0)
			w.wantExit(1)
			w.s.Notice(1, notify.Message{Ready: true}) // returns
			if _, got := w.swap(Request{}); got != "stopping" {
				t.Errorf("swap: %q", got)
			}
			if got := w.abort(); got != "stopping" {
				t.Errorf("abort: %q", got)
			}
			if _, err := w.s.Kill(t.Context(), KillRequest{Signal: syscall.SIGTERM}); w.refusal(err) != "stopping" {
				t.Errorf("kill: %v", err)
			}
			<-w.s.Done()
		},
	})
}

// TestPause is crank being stopped: no deadline is charged for it.
func TestPause(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"a limit": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.pass(10 * time.Second)
			w.pause(time.Hour)
			w.wantStates("1 starting")
			w.pass(20*time.Second - 1)
			w.wantStates("1 starting")
			w.pass(1)
			w.wantStates("1 stopping")
		},
		"a short one is charged": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.pass(28 * time.Second)
			w.pause(2 * time.Second)
			w.wantStates("1 stopping")
		},
		"what comes afterwards has its own time": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.stop(time.Hour)
			w.signals <- syscall.SIGTERM
			w.pass(time.Hour)
			w.wantLeft(1, 30*time.Second)
		},
		"what comes first afterwards, too": func(t *testing.T) {
			for range 20 { // the loop chooses what it takes first
				w := start(t, defaults, v1, nil)
				w.serve(1)
				w.kernel.setTakes(time.Hour, false)
				w.signals <- syscall.SIGHUP
				synctest.Wait()
				w.signals <- syscall.SIGTERM
				w.pass(time.Hour)
				w.wantLeft(1, 30*time.Second)
			}
		},
		"only the loop is blocked": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Stop = 12 * time.Second }), v1, nil)
			w.serve(1)
			w.run(v2)
			w.serve(2)
			w.wantLeft(1, 12*time.Second)
			w.kernel.setTakes(20*time.Second, true)
			w.signal(syscall.SIGHUP)
			w.pass(20 * time.Second)
			w.wantStates("2 ready, 3 starting")
			w.wantSignals(1, "TERM group KILL")
			if n := w.s.Status().Counters.ClockGaps; n != 0 {
				t.Errorf("%d gaps", n)
			}
		},
		"crank is stopped while the loop is blocked": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setTakes(20*time.Second, true)
			w.signal(syscall.SIGHUP)
			w.pass(10 * time.Second)
			w.kernel.freeze(8 * time.Second)
			w.pass(10 * time.Second)
			if n := w.s.Status().Counters.ClockGaps; n != 1 {
				t.Errorf("%d gaps", n)
			}
		},
		"the delay, a restart, a shutdown": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.DrainDelay = 10 * time.Second; c.Restart = RestartAlways }), v1, nil)
			w.serve(1)
			w.exits(1, 1, 0)
			w.pause(time.Hour)
			w.wantStates("")
			w.pass(2 * backoffFirst)
			w.serve(2)
			w.signal(syscall.SIGTERM)
			w.pause(time.Hour)
			w.wantStates("2 ready")
			w.pass(10 * time.Second)
			w.wantStates("2 stopping")
			w.pause(time.Hour)
			w.wantStates("2 stopping")
			w.pass(30 * time.Second)
			w.wantExit(137)
		},
	})
}

// TestAnswers is what those who ask are told, and when.
func TestAnswers(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"published before it is told": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			ticket, err := w.s.Swap(t.Context(), Request{Trigger: TriggerRun, Change: Change(v1)})
			if st := w.s.Status(); err != nil || st.Candidate != 1 {
				t.Fatalf("%v; candidate %d when Swap has returned", err, st.Candidate)
			}
			w.s.Notice(1, notify.Message{Ready: true})
			if st := w.s.Status(); !st.Ready {
				t.Fatalf("not ready when Notice has returned: %s", st.Reason)
			}
			if o := <-ticket.Done; !o.OK || o.Current != 1 || o.Saved == nil {
				t.Errorf("outcome %+v", o)
			}
			if o := w.s.Status().LastSwap; !o.OK || o.Saved != nil { // only one can receive from it
				t.Errorf("last swap %+v", o)
			}
			events, _ := w.s.Events(ticket.Seq)
			if len(events) != 2 || events[0].Kind != "started" || events[1].Kind != "ready" {
				t.Errorf("events since the request: %+v", events)
			}
		},
		"published before it is told, even if there is more to do": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.signal(syscall.SIGHUP)
			w.kernel.setTakes(time.Second, true)
			w.s.Notice(1, notify.Message{Ready: true}) // the loop goes on to launch another
			if st := w.s.Status(); !st.Ready {
				t.Errorf("not ready when Notice has returned: %s", st.Reason)
			}
		},
		"events carry the request's number": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.serve(2)
			w.exits(1, 0, 0)
			var got []string
			for _, e := range w.events {
				if e.Swap == ticket.ID {
					got = append(got, fmt.Sprint(e.Generation, " ", e.Kind))
				}
			}
			want := []string{"2 started", "2 ready", "2 settled", "1 stopping", "1 exited"}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		},
		"a failure, with the last words": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			ticket := w.run(v2)
			w.pass(3 * time.Second)
			w.kernel.child(2).tailTakes = 2 * time.Second
			w.exits(2, 3, 0)
			if len(w.outcomes) != 0 {
				t.Fatal("told before the last words were there")
			}
			w.pass(2 * time.Second)
			o := w.outcome(ticket)
			if o.Reason != "exited 3 before ready" || o.ExitCode != 3 || !slices.Equal(o.Stderr.Lines, []string{"last words of 2"}) {
				t.Errorf("outcome %+v", o)
			}
			e := w.events[len(w.events)-1]
			if e.Kind != "failed" || e.Swap != ticket.ID || e.Took != 3*time.Second || len(e.Stderr.Lines) != 1 {
				t.Errorf("event %+v", e)
			}
			if last := w.s.Status().LastSwap; last == nil || last.Generation != 2 || last.OK {
				t.Errorf("last swap %+v", last)
			}
		},
		"the one who asked goes away": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := w.s.Swap(ctx, Request{Trigger: TriggerReload}); err != nil {
				t.Fatal(err)
			}
			cancel()
			w.settle()
			w.serve(2)
			w.wantStates("1 stopping, 2 ready")
		},
		"who asked is in the refusal": func(t *testing.T) {
			w := start(t, defaults, Command{}, nil)
			w.swap(Request{Trigger: TriggerRun, Change: Change(v1), Asker: Asker{UID: 7, PID: 42, Name: "crankctl"}})
			_, err := w.s.Swap(t.Context(), Request{Trigger: TriggerReload, Change: Change(v2), Force: false})
			if err == nil || !strings.Contains(err.Error(), "generation") || !strings.Contains(err.Error(), "run (crankctl, pid 42, uid 7)") {
				t.Errorf("got %v", err)
			}
		},
		"nobody who is too late is waited for": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 10 {
				w.s.Swap(ctx, Request{Trigger: TriggerReload})
			}
		},
		"no more than the last 100 events": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			_, newer := w.s.Events(0)
			w.serve(1)
			select {
			case <-newer:
			default:
				t.Error("the channel was not closed by a newer event")
			}
			for range 200 {
				w.swap(Request{Trigger: TriggerRollback})
			}
			all, _ := w.s.Events(0)
			if len(all) != historySize || all[0].Seq != all[historySize-1].Seq-historySize+1 {
				t.Errorf("%d events, from %d to %d", len(all), all[0].Seq, all[len(all)-1].Seq)
			}
		},
	})
}

func TestMessages(t *testing.T) {
	text := func(w *world) string { return w.s.Status().Generations[0].Text }
	stories(t, map[string]func(*testing.T){
		"a failure of the current one is its status": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, notify.Message{Failed: "cache lost"})
			if got := text(w); got != "said that it failed: cache lost" {
				t.Errorf("text %q", got)
			}
			w.says(1, notify.Message{Errno: 5})
			if got := text(w); got != "said ERRNO=5 (input/output error)" {
				t.Errorf("text %q", got)
			}
			w.says(1, notify.Message{HasStatus: true})
			if got := text(w); got != "" {
				t.Errorf("text %q, want none", got)
			}
			if !w.s.Status().Ready {
				t.Error("not ready")
			}
		},
		"STOPPING of the current one is over with the next": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.says(1, notify.Message{Stopping: true})
			if st := w.s.Status(); st.Ready || st.Reason != "generation 1 said STOPPING=1" {
				t.Errorf("status %+v", st)
			}
			if got := text(w); got != "" {
				t.Errorf("text %q", got)
			}
			w.says(1, notify.Message{Ready: true})
			w.swap(Request{})
			w.serve(2)
			if st := w.s.Status(); !st.Ready {
				t.Errorf("status %+v", st)
			}
		},
		"STATUS with READY is in the event": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(1, notify.Message{Ready: true, HasStatus: true, Status: "booted"})
			if e := w.events[len(w.events)-1]; e.Kind != "ready" || e.Text != "booted" {
				t.Errorf("event %+v", e)
			}
		},
		"of nobody": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.says(7, notify.Message{Ready: true})
			w.wantStates("1 starting")
		},
		"no settling": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Settle = 0 }), v1, nil)
			w.serve(1)
			w.swap(Request{})
			w.ready(2)
			w.wantStates("1 stopping, 2 ready")
		},
	})
}

func TestKill(t *testing.T) {
	for _, c := range []struct {
		name   string
		states []State
		pid    int
		want   []int
	}{
		{"all", nil, 0, []int{1, 2, 3}},
		{"ready", []State{Ready}, 0, []int{2}},
		{"ready or stopping", []State{Ready, Stopping}, 0, []int{1, 2}},
		{"starting", []State{Starting, Settling}, 0, []int{3}},
		{"pid", nil, 1002, []int{2}},
		{"pid and state", []State{Stopping}, 1002, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, defaults, v1, nil)
				w.serve(1)
				w.run(v2)
				w.serve(2)
				w.run(v1)
				asker := Asker{UID: 1, PID: 2, Name: "crankctl"}
				all, err := w.s.Kill(t.Context(), KillRequest{States: c.states, PID: c.pid, Signal: syscall.SIGUSR2, Asker: asker})
				if err != nil {
					t.Fatal(err)
				}
				var got, signalled []int
				for _, g := range all {
					got = append(got, g.Generation)
				}
				for n := 1; n <= 3; n++ {
					if slices.Contains(w.kernel.got(n), "USR2") {
						signalled = append(signalled, n)
					}
				}
				if !slices.Equal(got, c.want) || !slices.Equal(signalled, c.want) {
					t.Errorf("told %v, signalled %v, want %v", got, signalled, c.want)
				}
				w.settle()
				for _, e := range w.events {
					if e.Kind == "signal" && e.Asker != asker {
						t.Errorf("event %+v does not say who asked", e)
					}
				}
			})
		})
	}
	t.Run("what is left behind", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.exits(1, 0, 1)
			w.s.Kill(t.Context(), KillRequest{Signal: syscall.SIGQUIT})
			w.settle()
			w.wantSignals(1, "others TERM others QUIT")
		})
	})
}

// TestNoPermission is an app that has become another user's.
func TestNoPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, defaults, v1, nil)
		w.serve(1)
		w.kernel.child(1).refuses = syscall.EPERM
		all, err := w.s.Kill(t.Context(), KillRequest{Signal: syscall.SIGUSR1})
		if got := w.refusal(err); got != "self" || len(all) != 1 || !strings.Contains(err.Error(), "operation not permitted") {
			t.Errorf("%d generations, refused as %q: %v", len(all), got, err)
		}
		w.signal(syscall.SIGTERM)
		w.pass(30*time.Second + killGrace)
		w.wantExit(137)
	})
}

// TestQuiet is crank doing no more than tini does: it says no more either.
func TestQuiet(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			said := 0
			w := start(t, with(func(c *Config) { c.Quiet = quiet; c.Ready.None = true }), v1, func(o *Options) {
				o.Log = funcr.New(func(_, _ string) { said++ }, funcr.Options{})
			})
			w.signal(syscall.SIGTERM)
			w.exits(1, 0, 0)
			if quiet != (said == 0) {
				t.Errorf("quiet %v: %d messages", quiet, said)
			}
		})
	}
}

func TestNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, defaults, Command{}, func(o *Options) { o.Saver = nil })
		ticket := w.run(v1)
		w.serve(1)
		if o := w.outcome(ticket); !o.OK || o.Saved != nil {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestStalled: the loop ticks even if nothing happens. Time without a tick counts, except while crank was stopped.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, defaults, v1, nil)
		want := func(what string, from, to time.Duration) {
			t.Helper()
			if got := w.s.Stalled(); got < from || got > to {
				t.Errorf("%s: stalled for %v, want %v to %v", what, got, from, to)
			}
		}
		if got := New(defaults, Options{}).Stalled(); got != 0 {
			t.Errorf("before Run: stalled for %v", got)
		}
		w.serve(1)
		w.pass(time.Hour + tick/2)
		want("nothing happens", 0, tick)
		w.kernel.setTakes(time.Hour, false)
		w.signals <- syscall.SIGHUP
		synctest.Wait()
		time.Sleep(time.Hour - 1)
		w.kernel.freeze(0) // it continues, and Stalled is called before the loop ticks
		want("stopped for an hour", 0, tick)
		w.pass(time.Minute)
		w.serve(2)
		w.kernel.setTakes(time.Minute, true)
		w.signals <- syscall.SIGHUP
		time.Sleep(40 * time.Second)
		want("blocked for 40 seconds", 40*time.Second-tick, 40*time.Second)
		w.pass(time.Minute)
		want("afterwards", 0, tick)
	})
}

func TestProtect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, defaults, v1, nil)
		w.serve(1)
		w.swap(Request{})
		if w.kernel.child(1).protect || !w.kernel.child(2).protect {
			t.Error("only a candidate beside one that serves is to be held back")
		}
	})
}

// TestLegalMoves tries every pair of states.
func TestLegalMoves(t *testing.T) {
	for from := State(0); from <= Exited; from++ {
		for to := State(0); to <= Exited; to++ {
			err := func() (err any) {
				defer func() { err = recover() }()
				New(Config{}, Options{}).become(&generation{n: 1, state: from}, to, "")
				return nil
			}()
			if legal := slices.Contains(legal[from], to); legal != (err == nil) {
				t.Errorf("from %v to %v: legal %v, panic %v", from, to, legal, err)
			}
		}
	}
}

func TestChange(t *testing.T) {
	base := Command{Argv: []string{"a", "b"}, Dir: "/d", Env: []string{"A=1", "B=2"}, Start: 1, Stop: 2}
	for _, c := range []struct {
		name   string
		change Change
		want   Command
	}{
		{"nothing", Change{}, base},
		{"argv", Change{Argv: []string{"c"}}, Command{Argv: []string{"c"}, Dir: "/d", Env: base.Env, Start: 1, Stop: 2}},
		{"dir and limits", Change{Dir: "/e", Start: 3, Stop: 4}, Command{Argv: base.Argv, Dir: "/e", Env: base.Env, Start: 3, Stop: 4}},
		{"set", Change{Env: []string{"A=3"}}, Command{Argv: base.Argv, Dir: "/d", Env: []string{"B=2", "A=3"}, Start: 1, Stop: 2}},
		{"remove", Change{Env: []string{"A-"}}, Command{Argv: base.Argv, Dir: "/d", Env: []string{"B=2", "A-"}, Start: 1, Stop: 2}},
		{"the last one wins", Change{Env: []string{"C-", "C=1", "C=2=3"}}, Command{Argv: base.Argv, Dir: "/d", Env: []string{"A=1", "B=2", "C=2=3"}, Start: 1, Stop: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.change.Apply(base); !got.Equal(c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if base.Env[0] != "A=1" || len(base.Env) != 2 {
		t.Errorf("Apply has changed its argument: %v", base)
	}
	for entry, want := range map[string]string{"A=1": "A", "A-": "A", "A-=1": "A-", "A=": "A", "A=x-": "A"} {
		if got := EnvKey(entry); got != want {
			t.Errorf("EnvKey(%q) = %q, want %q", entry, got, want)
		}
	}
}
