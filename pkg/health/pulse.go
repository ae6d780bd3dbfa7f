package health

import (
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// deadAfter is how long the loop may go without a tick; it ticks every second.
	deadAfter = 30 * time.Second

	pulseInterval = time.Second
)

// pulse notices that the supervisor's loop does not run. It knows time by its own ticks alone: of the
// time in which the whole process is stopped or frozen it gets none, or one, and so counts nothing as lost.
// The age of the last tick would: after docker unpause the first probe can come before the loop does.
type pulse struct {
	lastTick func() time.Time
	seen     time.Time    // look's own
	missed   atomic.Int64 // looks in a row that found no new tick
}

// start looks once every pulseInterval until stop is called, which waits for the end.
func (p *pulse) start() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(pulseInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.look()
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

func (p *pulse) look() {
	last := p.lastTick()
	if !last.Equal(p.seen) {
		p.seen = last
		p.missed.Store(0)
		return
	}
	p.missed.Add(1)
}

// failed returns why crank is not alive; empty: it is.
func (p *pulse) failed() string {
	silent := time.Duration(p.missed.Load()) * pulseInterval
	if silent < deadAfter {
		return ""
	}
	return fmt.Sprintf("the supervisor's loop has not ticked for %v", silent)
}
