package supervisor

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crankctl/crank/pkg/notify"
)

func (k *kernel) setBroken(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = what
}

func (k *kernel) timesTended() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.tended
	k.tended = 0
	return n
}

// TestBroken: while what all generations share is broken, crank is not ready, and says why; a swap still works.
func TestBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, Config{Start: time.Minute, Stop: time.Minute, Settle: time.Second}, v1, nil)
		w.serve(1)
		w.kernel.setBroken("socket web: it was shut down for everybody")
		w.pass(tick)
		if st := w.s.Status(); st.Ready || st.Reason != "socket web: it was shut down for everybody" {
			t.Errorf("ready %v: %q", st.Ready, st.Reason)
		}
		w.run(v2)
		w.serve(2)
		if w.s.Status().Ready {
			t.Error("a swap repaired it")
		}
		w.kernel.setBroken("")
		w.pass(tick)
		if st := w.s.Status(); !st.Ready {
			t.Errorf("not ready: %q", st.Reason)
		}
		kinds := map[string]int{}
		for _, e := range w.events {
			kinds[e.Kind]++
		}
		if kinds["broken"] != 1 || kinds["mended"] != 1 {
			t.Errorf("events: %v", kinds)
		}
	})
}

// TestTended: Tend is called at every tick, more often while there is a candidate, immediately when one has failed or a generation has
// ended, and no longer once all are asked to stop.
func TestTended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, Config{Start: time.Minute, Stop: time.Minute, Settle: time.Second, DrainDelay: 10 * time.Second}, v1, nil)
		w.serve(1)
		w.kernel.timesTended()
		w.pass(10 * tick)
		if n := w.kernel.timesTended(); n != 10 {
			t.Errorf("%d times in 10 ticks", n)
		}
		w.run(v2)
		w.kernel.timesTended()
		w.pass(10 * tick)
		if n := w.kernel.timesTended(); n < 90 {
			t.Errorf("%d times in 10 ticks with a candidate", n)
		}
		w.says(2, notify.Message{Failed: "x"})
		if n := w.kernel.timesTended(); n == 0 {
			t.Error("not called when the candidate failed")
		}
		if !w.kernel.child(2).failed || w.kernel.child(1).failed {
			t.Error("the wrong generation failed")
		}
		w.exits(2, 0, 0)
		if n := w.kernel.timesTended(); n == 0 {
			t.Error("not called when it ended")
		}
		w.signal(syscall.SIGTERM)
		w.kernel.timesTended()
		w.pass(5 * tick)
		if n := w.kernel.timesTended(); n != 5 {
			t.Errorf("%d times in 5 ticks of the drain delay", n)
		}
		w.pass(5 * tick)
		w.kernel.timesTended()
		w.pass(5 * tick)
		if n := w.kernel.timesTended(); n != 0 {
			t.Errorf("%d times while the app drains", n)
		}
	})
}
