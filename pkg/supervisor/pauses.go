package supervisor

import (
	"sync"
	"time"
)

// pauses notices the time in which this process did not run, since it was stopped, frozen, or got no processor. CLOCK_MONOTONIC
// goes on meanwhile. Two look at the clock: the loop at each turn, and a goroutine of its own each second. While the loop alone is held
// up the other one goes on, and then that is no pause.
type pauses struct {
	now func() time.Time // time.Now, but in tests

	mu   sync.Mutex
	last time.Time // of all looks
	seen gaps
	beat time.Time     // of the loop
	lost time.Duration // in all gaps until then
}

// gaps are pauses of more than gapLimit.
type gaps struct {
	count int64
	lost  time.Duration // in all of them
}

// start is the first look.
func (p *pauses) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.now()
	p.beat = p.last
}

// observe looks at the clock. mu is held, also while that is read: looks are in the order of their times.
func (p *pauses) observe() (now time.Time) {
	now = p.now()
	if gap := now.Sub(p.last); gap > gapLimit {
		p.seen.count++
		p.seen.lost += gap
	}
	p.last = now
	return now
}

// tick is the look of the loop. It returns all gaps until now.
func (p *pauses) tick() gaps {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = p.observe()
	p.lost = p.seen.lost
	return p.seen
}

// stalled returns how long there was no tick, without gaps.
func (p *pauses) stalled() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.observe()
	return now.Sub(p.beat) - (p.seen.lost - p.lost)
}

// watch looks every tick until stop is called, which waits for the end.
func (p *pauses) watch() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.stalled()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}
