package supervisor

import (
	"sync"
	"time"
)

// pauses detects the time in which this process did not run because it was stopped, frozen, or got no CPU. CLOCK_MONOTONIC continues
// meanwhile. The loop looks at the clock at each turn, and another goroutine does each second. While only the loop is blocked, the
// other goroutine continues, so that this does not count as a pause.
type pauses struct {
	now func() time.Time // time.Now, except in tests

	mu   sync.Mutex
	last time.Time // last look of either
	seen gaps
	beat time.Time     // last look of the loop
	lost time.Duration // in all gaps until beat
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

// observe looks at the clock. mu is held while it is read, so that the looks are in the order of their times.
func (p *pauses) observe() (now time.Time) {
	now = p.now()
	if gap := now.Sub(p.last); gap > gapLimit {
		p.seen.count++
		p.seen.lost += gap
	}
	p.last = now
	return now
}

// tick is the look of the loop. It returns all gaps so far.
func (p *pauses) tick() gaps {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = p.observe()
	p.lost = p.seen.lost
	return p.seen
}

// stalled returns the time since the last tick, without gaps.
func (p *pauses) stalled() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.observe()
	return now.Sub(p.beat) - (p.seen.lost - p.lost)
}

// watch looks every tick until stop is called, which waits for its goroutine to end.
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
