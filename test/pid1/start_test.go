package pid1

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// fate is what became of a signal that was sent right after the init was executed.
type fate string

const (
	delivered fate = "delivered"
	lost      fate = "lost"
	died      fate = "killed the init"
)

// TestFirstMoments sends signals at once after the exec of the init, and up to 3 ms later. What is
// lost or kills is printed: a Go program cannot do better than its runtime, which must come up before
// the first handler can be installed. What must never be is any other end.
func TestFirstMoments(t *testing.T) {
	const tries = 100
	moments := []struct {
		sig  syscall.Signal
		most time.Duration
	}{{syscall.SIGHUP, 0}, {syscall.SIGTERM, 3 * time.Millisecond}}
	for _, p := range inits[:3] {
		if p.path == "" {
			continue
		}
		t.Run(p.name, func(t *testing.T) { // not parallel: the time is measured
			for _, m := range moments {
				fates := map[fate]int{}
				var latest time.Duration // after the exec, of what was not delivered
				for range tries {
					f, after, err := firstSignal(p, m.sig, m.most)
					must(t, err)
					fates[f]++
					if f != delivered {
						latest = max(latest, after)
					}
				}
				t.Logf("signal %d, at most %v after exec: %v of %d; the latest that was not delivered came after %v",
					m.sig, m.most, fates, tries, latest.Round(10*time.Microsecond))
			}
		})
	}
}

// firstSignal sends sig at a random moment, and then, once the app runs, USR1: the app ends of the
// first one that it gets.
func firstSignal(p *program, sig syscall.Signal, most time.Duration) (f fate, after time.Duration, err error) {
	c, err := start(p, options{}, nil, "/bin/sleep", "1000")
	if err != nil {
		return "", 0, err
	}
	defer c.close()
	began := time.Now()
	if most > 0 {
		for wait := rand.N(most); time.Since(began) < wait; {
		}
	}
	after = time.Since(began)
	if err := c.signal(sig); err != nil && err != syscall.ESRCH {
		return "", 0, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.reap()
	}()
	for running := true; running; { // until the app runs or all is over
		select {
		case <-ended:
			running = false
		case <-time.After(200 * time.Microsecond):
			if children := childrenOf(c.pid); len(children) > 0 && statusOf(children[0].pid, "Name") == "sleep" {
				_ = c.signal(syscall.SIGUSR1) // ESRCH: it has ended meanwhile
				running = false
			}
		}
	}
	e, err := c.wait()
	switch {
	case err != nil:
		return "", after, err
	case e == end{code: 128 + int(sig)}, p.ours() && sig == syscall.SIGTERM && e == end{}: // stopped before there was an app
		return delivered, after, nil
	case e == end{code: 128 + int(syscall.SIGUSR1)}:
		return lost, after, nil
	case e == end{code: -1, sig: sig}, p.ours() && e == end{code: 2}: // the Go runtime as PID 1: it cannot kill itself
		return died, after, nil
	}
	return "", after, fmt.Errorf("it %v\n%s", e, &c.stderr)
}
