package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// observed is an Observer that every world has: what it is told must be in the closed lists.
type observed struct {
	mu    sync.Mutex
	told  []string
	wrong []string
}

func (o *observed) SwapEnded(t Trigger, result, reason string, took time.Duration) {
	o.closed(slices.Contains(Triggers, t) && slices.Contains(Results, result), t, result)
	o.closed((result == ResultFailed) == slices.Contains(Reasons, reason), result, reason)
	o.closed(result == ResultFailed || reason == "", result, reason)
	o.tell("swap %s %s %s in %v", t, result, reason, took)
}

func (o *observed) BecameReady(took time.Duration) { o.tell("ready in %v", took) }
func (o *observed) Stopped(took time.Duration)     { o.tell("stopped in %v", took) }

func (o *observed) Exited(in State, cause string) {
	o.closed(slices.Contains(States, in) && slices.Contains(ExitCauses, cause), in, cause)
	o.tell("%v exited: %s", in, cause)
}

func (o *observed) Killed(phase string) {
	o.closed(slices.Contains(KillPhases, phase), phase)
	o.tell("killed: %s", phase)
}

func (o *observed) Signalled(signal syscall.Signal, action string) {
	o.closed(slices.Contains(Actions, action), action)
	o.tell("%s %s", signalName(signal), action)
}

func (o *observed) tell(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, strings.ReplaceAll(fmt.Sprintf(format, args...), "  ", " "))
}

func (o *observed) closed(ok bool, values ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ok {
		o.wrong = append(o.wrong, fmt.Sprint("an observer was told of ", values))
	}
}

func (o *observed) complaints() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	wrong := o.wrong
	o.wrong = nil
	return wrong
}

func (o *observed) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	told := strings.Join(o.told, "; ")
	o.told = nil
	return told
}

func TestObserver(t *testing.T) {
	base := Config{Start: 10 * time.Second, Settle: time.Second, Stop: 30 * time.Second}
	ready := notify.Message{Ready: true}
	tests := []struct {
		name  string
		cfg   func(*Config)
		first Command
		begin func(*world) // not looked at
		act   func(*world)
		want  string
	}{
		{"the first start", nil, v1, nil, func(w *world) { w.pass(2 * time.Second); w.ready(1) },
			"ready in 2s; swap start ok in 2s"},
		{"a swap", nil, v1, serving, func(w *world) { w.run(v2); w.pass(time.Second); w.serve(2); w.pass(time.Second); w.exits(1, 0, 0) },
			"ready in 1s; swap run ok in 2s; stopping exited: exit; stopped in 1s"},
		{"HUP", nil, v1, serving, func(w *world) { w.signal(syscall.SIGHUP, syscall.SIGHUP); w.serve(2) },
			"SIGHUP swap; SIGHUP swap; ready in 0s; swap hup ok in 1s"},
		{"HUP with nothing to start", nil, Command{}, nil, func(w *world) { w.signal(syscall.SIGHUP) }, "SIGHUP ignored"},
		{"HUP ignored", func(c *Config) { c.HUP = HUPIgnore }, v1, serving, func(w *world) { w.signal(syscall.SIGHUP) }, "SIGHUP ignored"},
		{"HUP forwarded", func(c *Config) { c.HUP = HUPForward }, v1, serving, func(w *world) { w.signal(syscall.SIGHUP) }, "SIGHUP forwarded"},
		{"HUP while stopping", nil, v1, stopping, func(w *world) { w.signal(syscall.SIGHUP) }, "SIGHUP dropped"},
		{"the terminal hangs up", nil, v1, serving, func(w *world) { w.hungUp = true; w.signal(syscall.SIGHUP) }, "SIGHUP stop"},
		{"USR1", nil, v1, serving, func(w *world) { w.signal(syscall.SIGUSR1) }, "SIGUSR1 forwarded"},
		{"USR1 held", nil, Command{}, nil, func(w *world) { w.signal(syscall.SIGUSR1, syscall.SIGUSR1); w.run(v1) }, "SIGUSR1 held; SIGUSR1 held"},
		{"USR1 with nobody left", nil, v1, func(w *world) { stopping(w); w.exits(1, 0, 1) },
			func(w *world) { w.signal(syscall.SIGUSR1) }, "SIGUSR1 dropped"},
		{"refused", nil, v1, nil, func(w *world) { w.swap(Request{Trigger: TriggerReload}) }, "swap reload refused in 0s"},
		{"not executed", nil, v1, serving, func(w *world) { w.kernel.failNext(&proc.StartError{}); w.run(v2) }, "swap run failed exec in 0s"},
		{"exits", nil, v1, serving, func(w *world) { w.run(v2); w.exits(2, 0, 0) }, "starting exited: exit; swap run failed exit in 0s"},
		{"is killed by others", nil, v1, serving, func(w *world) { w.run(v2); w.killed(2, syscall.SIGKILL) },
			"starting exited: signal; swap run failed signal in 0s"},
		{"not ready in time, not gone in time", nil, v1, serving, func(w *world) { w.run(v2); w.pass(15 * time.Second) },
			"swap run failed timeout in 10s; killed: start; stopping exited: killed; stopped in 5s"},
		{"says that it failed", nil, v1, serving, func(w *world) { w.run(v2); w.says(2, notify.Message{Failed: "no"}) }, "swap run failed reported in 0s"},
		{"does not settle", nil, v1, serving, func(w *world) { w.run(v2); w.says(2, ready); w.exits(2, 1, 0) },
			"ready in 0s; settling exited: exit; swap run failed settle in 0s"},
		{"replaced", nil, v1, serving, func(w *world) { w.run(v2); w.swap(Request{Trigger: TriggerRollback}); w.swap(Request{Force: true}) },
			"swap rollback refused in 0s; swap run failed replaced in 0s"},
		{"aborted", nil, v1, serving, func(w *world) { w.run(v2); w.abort() }, "swap run failed replaced in 0s"},
		{"shutdown", nil, v1, serving, func(w *world) { w.run(v2); w.signal(syscall.SIGTERM) },
			"SIGTERM stop; swap run failed shutdown in 0s"},
		{"not gone in time at the end", nil, v1, stopping, func(w *world) { w.pass(30 * time.Second) },
			"killed: shutdown; stopping exited: killed; stopped in 30s"},
		{"the delay is cut short", func(c *Config) { c.DrainDelay = time.Minute }, v1, serving,
			func(w *world) { w.signal(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT) }, "SIGTERM stop; SIGINT stop; SIGQUIT forwarded"},
		{"three INT on a terminal", func(c *Config) { c.Terminal = true }, v1, serving,
			func(w *world) { w.signal(syscall.SIGINT, syscall.SIGINT, syscall.SIGINT) },
			"SIGINT stop; SIGINT forwarded; SIGINT stop; killed: shutdown; stopping exited: killed; stopped in 0s"},
		{"replaced and not gone in time", nil, v1, func(w *world) { serving(w); w.run(v2); w.serve(2) }, func(w *world) { w.pass(30 * time.Second) },
			"killed: drain; stopping exited: killed; stopped in 30s"},
		{"the oldest is killed", func(c *Config) { c.MaxDraining = 1 }, v1, func(w *world) { serving(w); w.run(v2); w.serve(2) },
			func(w *world) { w.swap(Request{Force: true}) }, "killed: force; stopping exited: killed; stopped in 0s"},
		{"dies and leaves others", func(c *Config) { c.Restart = RestartAlways }, v1, serving,
			func(w *world) { w.exits(1, 1, 1); w.othersGo(1) }, "ready exited: exit; stopped in 5ms"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := base
				if test.cfg != nil {
					test.cfg(&cfg)
				}
				w := start(t, cfg, test.first, nil)
				if test.begin != nil {
					test.begin(w)
					w.observed.take()
				}
				test.act(w)
				if told := w.observed.take(); told != test.want {
					t.Errorf("an observer was told\n %s\nwant\n %s", told, test.want)
				}
			})
		})
	}
}

func serving(w *world) { w.ready(1) }

func stopping(w *world) {
	w.ready(1)
	w.signal(syscall.SIGTERM)
}

// TestCounters: what is counted without an Observer.
func TestCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, Config{Settle: time.Second, Stop: time.Minute, MaxDraining: 8, Restart: RestartAlways}, v1,
			func(o *Options) { o.Observer = nil })
		w.serve(1)
		w.run(v2)
		w.serve(2)
		st := w.s.Status()
		if st.Draining != 1 || st.LastSwap == nil || time.Since(st.LastSwap.Ended) != 0 || st.LastSwap.Took != time.Second {
			t.Errorf("draining %d, last swap %+v", st.Draining, st.LastSwap)
		}
		w.kernel.failNext(syscall.ENOENT)
		w.run(v1) // its end is not counted
		w.exits(2, 1, 0)
		w.kernel.adopted()
		w.pass(time.Second)
		w.pause(time.Minute)
		got := w.s.Status().Counters
		if got.Restarts != 1 || got.Reaped != 2 || got.ClockGaps != 1 {
			t.Errorf("%+v", got)
		}
	})
}
