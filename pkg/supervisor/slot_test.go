package supervisor

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// slots returns the slots of the generations, as "3:0 4:1".
func (w *world) slots() string {
	var all []string
	for _, g := range w.s.Status().Generations {
		all = append(all, fmt.Sprintf("%d:%d", g.Generation, g.Slot))
	}
	return strings.Join(all, " ")
}

func (w *world) wantSlots(want string) {
	w.t.Helper()
	if got := w.slots(); got != want {
		w.t.Fatalf("slots %q, want %q", got, want)
	}
}

// TestSlots: each generation has the lowest number that no other living one has.
func TestSlots(t *testing.T) {
	stories(t, map[string]func(*testing.T){
		"back and forth": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			for n := 2; n < 40; n++ {
				w.swap(Request{})
				w.wantSlots(fmt.Sprintf("%d:%d %d:%d", n-1, n%2, n, 1-n%2))
				w.serve(n)
				w.exits(n-1, 0, 0)
				w.wantSlots(fmt.Sprintf("%d:%d", n, 1-n%2))
			}
		},
		"a failed candidate keeps its slot until it is gone": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.abort()
			w.run(v2)
			w.wantSlots("1:0 2:1 3:2")
			w.killed(2, syscall.SIGTERM)
			w.abort()
			w.run(v2)
			w.wantSlots("1:0 3:2 4:1")
		},
		"leftover processes keep it": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.run(v2)
			w.exits(2, 3, 1)
			w.run(v2)
			w.wantSlots("1:0 2:1 3:2")
			w.othersGo(2)
			w.exits(3, 3, 0)
			w.run(v2)
			w.wantSlots("1:0 4:1")
		},
		"several drain": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			for n := 2; n <= 5; n++ {
				w.swap(Request{})
				w.serve(n)
			}
			w.wantSlots("1:0 2:1 3:2 4:3 5:4")
			w.exits(3, 0, 0)
			w.exits(1, 0, 0)
			w.swap(Request{})
			w.serve(6)
			w.wantSlots("2:1 4:3 5:4 6:0")
			w.swap(Request{})
			w.wantSlots("2:1 4:3 5:4 6:0 7:2")
		},
		"one that cannot be started has none": func(t *testing.T) {
			w := start(t, defaults, v1, nil)
			w.serve(1)
			w.kernel.failNext(syscall.ENOENT)
			w.run(v2)
			w.kernel.failNextFork(syscall.EAGAIN)
			w.run(v2)
			w.run(v2)
			w.wantSlots("1:0 4:1")
		},
		"the check has that of its app": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Check = []string{"/check"} }), v1, nil)
			w.serve(1)
			w.run(v2)
			w.wantSlots("1:0 2:1") // world.check compares with the CRANK_SLOT of the processes
			w.exits(2, 0, 0)
			w.wantSlots("1:0 2:1")
		},
		"a probe has it": func(t *testing.T) {
			w := start(t, with(func(c *Config) {
				c.Ready = Readiness{Exec: []string{"/probe", "{slot}/{generation}"}, Interval: 1, Timeout: 1}
			}), v1, nil)
			w.kernel.mu.Lock()
			defer w.kernel.mu.Unlock()
			if p := w.kernel.probes[0]; p.slot != 0 || p.argv[1] != "0/1" {
				t.Errorf("slot %d, arguments %q", p.slot, p.argv)
			}
		},
		"a restart uses it again": func(t *testing.T) {
			w := start(t, with(func(c *Config) { c.Restart = RestartAlways }), v1, nil)
			w.serve(1)
			w.exits(1, 3, 0)
			w.pass(2 * backoffFirst)
			w.wantSlots("2:0")
			w.serve(2)
			w.exits(2, 3, 1) // the leftover process is killed, but not gone yet
			w.kernel.setUndying(true)
			w.pass(2*restartGrace + killGrace)
			w.wantSlots("2:0 3:1")
			w.kernel.setUndying(false)
		},
	})
}
