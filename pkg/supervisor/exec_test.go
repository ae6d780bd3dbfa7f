package supervisor

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// hangs makes execs hang from the start.
func hangs(o *Options) { o.Launcher.(*kernel).setHang(true) }

// TestExecHangs: an exec can hang while another process has a lease on the program, or a file system does not answer.
func TestExecHangs(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"the start is announced after the exec": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.wantStates("1 executing")
			w.wantMoves("")
			w.pass(10 * time.Second)
			w.kernel.execOver(1, nil)
			w.settle()
			w.wantStates("1 starting")
			w.wantMoves("started")
			w.wantLeft(1, 20*time.Second) // the limit covers the whole start
		},
		"the request is answered after the exec": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setHang(true)
			w.swap(Request{})
			if len(w.asking) != 1 {
				t.Fatal("answered before the exec")
			}
			w.kernel.execOver(2, nil)
			w.settle()
			if len(w.asking) != 0 || w.tickets[0].PID != 1002 {
				t.Errorf("tickets %+v", w.tickets)
			}
			w.serve(2)
			if o := w.outcome(w.tickets[0]); !o.OK {
				t.Errorf("outcome %+v", o)
			}
		},
		"the exec fails": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setHang(true)
			w.swap(Request{})
			w.kernel.execOver(2, &proc.StartError{Op: "find", Path: "app", Err: fs.ErrNotExist})
			w.settle()
			w.wantStates("1 ready")
			w.wantMoves("started ready exited failed")
			if o := w.outcome(w.tickets[0]); w.tickets[0].PID != 0 || o.ExitCode != 127 || o.PID != 0 {
				t.Errorf("ticket %+v, outcome %+v", w.tickets[0], o)
			}
		},
		"aborted, the request is answered": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setHang(true)
			w.swap(Request{})
			w.abort()
			w.wantStates("1 ready, 2 stopping")
			w.wantSignals(2, "TERM")
			if len(w.asking) != 0 {
				t.Fatal("it was not answered")
			}
			if pid := w.tickets[0].PID; pid != 0 {
				t.Errorf("the answer names process %d, as if it were started", pid)
			}
			w.wantFailed(w.tickets[0], "aborted")
			w.kernel.execOver(2, nil) // too late
			w.settle()
			w.wantLeft(2, 5*time.Second)
			w.wantMoves("started ready stopping failed")
		},
		"aborted, then the exec fails": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.abort()
			w.kernel.execOver(1, syscall.EACCES)
			w.settle()
			w.wantStates("")
			w.signal(syscall.SIGTERM)
			w.wantExit(127) // the fake's exit code
		},
		"survives KILL": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.kernel.setUndying(true)
			w.signal(syscall.SIGTERM)
			w.pass(time.Minute)
			w.wantExit(137)
		},
		"TERM at the first start": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.signal(syscall.SIGTERM)
			w.wantSignals(1, "TERM")
			w.killed(1, syscall.SIGTERM)
			w.wantExit(143)
		},
		"timeout at the first start": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.pass(30 * time.Second)
			w.killed(1, syscall.SIGTERM)
			w.wantExit(124)
		},
		"no limit": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Start = 0 }), v1, hangs)
			w.pass(time.Hour)
			w.wantStates("1 executing")
		},
		"signals wait for the app": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.signal(syscall.SIGUSR1)
			w.wantSignals(1, "")
			w.kernel.execOver(1, nil)
			w.settle()
			w.wantSignals(1, "USR1")
		},
		"HUP waits for the outcome": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.setHang(true)
			w.signal(syscall.SIGHUP)
			w.signal(syscall.SIGHUP)
			w.wantStates("1 ready, 2 executing")
			w.kernel.execOver(2, syscall.EACCES)
			w.settle()
			w.wantStates("1 ready, 3 executing")
		},
		"ready without a message only after the exec": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Ready.None = true }), v1, hangs)
			w.pass(10 * time.Second)
			w.wantStates("1 executing")
			w.kernel.execOver(1, nil)
			w.settle()
			w.wantStates("1 ready")
		},
		"killed before the exec, never ready": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Ready.None = true }), v1, hangs)
			w.killed(1, syscall.SIGKILL)
			w.wantMoves("exited shutdown failed")
			w.wantExit(137)
		},
		"executed and ended before crank looks": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Ready.None = true }), v1, hangs)
			w.exits(1, 3, 0) // it executed its program before
			w.wantMoves("started ready exited shutdown")
			w.wantExit(3)
		},
		"the time to stay alive starts after the exec": func(t *testing.T) {
			w := start(t, alive, v1, hangs)
			w.wantLeft(1, 30*time.Second)
			w.pass(20 * time.Second)
			w.kernel.execOver(1, nil)
			w.settle()
			w.pass(time.Minute - 1)
			w.wantStates("1 starting")
			w.pass(1)
			w.wantStates("1 ready")
		},
		"probes start after the exec": func(t *testing.T) {
			w := start(t, probedNet, v1, hangs)
			w.pass(10 * time.Second)
			w.wantProbes(1, 0)
			w.kernel.execOver(1, nil)
			w.settle()
			w.wantProbes(1, 1)
		},
		"READY arrives before the news of the exec": func(t *testing.T) {
			w := start(t, defaults, v1, hangs)
			w.says(1, notify.Message{Ready: true}) // from another process
			w.wantStates("1 executing")
			w.kernel.executeUnheard(1)
			w.says(1, notify.Message{Ready: true})
			w.wantStates("1 ready")
			w.wantMoves("started ready")
		},
		"TERM arrives before the news of the exec": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Ready.None = true }), v1, hangs)
			w.kernel.executeUnheard(1)
			w.signal(syscall.SIGQUIT)
			w.wantMoves("started ready shutdown stopping")
			w.wantSignals(1, "QUIT")
			w.exits(1, 5, 0)
			w.wantExit(5)
		},
		"exec of the check": func(t *testing.T) {
			w := start(t, checked, v1, hangs)
			w.wantMoves("")
			w.kernel.execOver(1, nil)
			w.settle()
			w.wantMoves("checking")
			w.exits(1, 0, 0)
			w.wantStates("1 executing") // now the app's
			w.kernel.execOver(1, nil)
			w.settle()
			w.wantMoves("checking started")
		},
		"timeout of the exec of the check": func(t *testing.T) {
			w := start(t, checked, v1, hangs)
			w.pass(30 * time.Second)
			w.wantStates("1 stopping")
			w.killed(1, syscall.SIGTERM)
			w.wantExit(124)
		},
		"exec of a probe": func(t *testing.T) {
			w := start(t, probedExec, v1, nil)
			w.pass(time.Second)
			w.wantSignals(1, "probe group KILL")
			w.pass(time.Second)
			w.serve(1)
		},
		"exec of the saved command": func(t *testing.T) {
			w := start(t, defaults, v2, func(o *Options) { o.Fallback = &v1; hangs(o) })
			w.kernel.setHang(false)
			w.pass(30 * time.Second)
			w.wantStates("1 stopping, 2 starting")
			if got := fmt.Sprint(w.setAside); !strings.Contains(got, "not executed in time (30s)") {
				t.Errorf("set aside because of %s", got)
			}
		},
	})
}
