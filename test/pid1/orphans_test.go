package pid1

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	manyOrphans = 100_000
	peersShare  = 2      // a peer makes only half as many
	rounds      = 5      // in turns, so that what else the machine does falls on all alike
	warmUp      = 20_000 // a Go heap has its size then
	batch       = 500
	// flat is how much memory an init may have more of after 100,000 orphans.
	flat = 4 << 20
)

// storm is an init in a storm of orphans, and what was measured.
type storm struct {
	*container
	name          string
	orders        *os.File
	made          int
	took, cpu     time.Duration
	zombies       int // the most at any sample
	before, after int // resident bytes
}

// TestHundredThousandOrphans: made as fast as the machine can. None stays, and memory is flat.
func TestHundredThousandOrphans(t *testing.T) {
	var storms []*storm
	for _, p := range []*program{inits[0], inits[2]} {
		if p.path == "" {
			continue
		}
		s, err := startStorm(p)
		must(t, err)
		defer s.close()
		defer s.orders.Close()
		storms = append(storms, s)
	}
	for range rounds {
		for _, s := range storms {
			n := manyOrphans / rounds
			if s != storms[0] {
				n /= peersShare
			}
			must(t, s.round(n))
		}
	}
	for _, s := range storms {
		s.after = resident(s.pid)
		t.Logf("%s: %d orphans in %v (%.0f a second), %v of its own CPU, at most %d zombies, resident %d KiB, then %d KiB", s.name, s.made,
			s.took.Round(time.Millisecond), s.rate(), s.cpu, s.zombies, s.before>>10, s.after>>10)
		s.orders.Close()
		must(t, s.ends(0))
	}
	ours := storms[0]
	if grown := ours.after - ours.before; grown > flat {
		t.Errorf("crank grew by %d KiB", grown>>10)
	}
	if len(storms) > 1 {
		theirs := storms[1]
		t.Logf("crank beside tini: %.2f of its rate, %.2f times its CPU", ours.rate()/theirs.rate(),
			ours.cpu.Seconds()/float64(ours.made)*float64(theirs.made)/theirs.cpu.Seconds())
	}
}

// rate is in orphans a second.
func (s *storm) rate() float64 { return float64(s.made) / s.took.Seconds() }

// startStorm starts p, with an app that makes orphans when told to, and has it warm up.
func startStorm(p *program) (*storm, error) {
	in, orders, err := pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	c, err := start(p, options{stdin: in}, nil, app("orphans", strconv.Itoa(warmUp), strconv.Itoa(batch))...)
	if err != nil {
		return nil, err
	}
	if _, err := c.expect("done"); err != nil {
		return nil, err
	}
	s := &storm{container: c, name: p.name, orders: orders}
	err = c.alone("inside")
	s.before = resident(c.pid)
	return s, err
}

// round makes n orphans, and waits until none is left.
func (s *storm) round(n int) error {
	stop := s.sample()
	defer stop()
	earlier, _ := lookup(s.pid)
	began := time.Now()
	if _, err := fmt.Fprintln(s.orders, n); err != nil {
		return err
	}
	if _, err := s.expect("done"); err != nil {
		return err
	}
	err := s.alone("inside")
	s.made += n
	s.took += time.Since(began)
	later, _ := lookup(s.pid)
	s.cpu += later.cpu - earlier.cpu
	return err
}

// sample counts zombies until stop is called.
func (s *storm) sample() (stop func()) {
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			zombies := 0
			for _, child := range childrenOf(s.pid) {
				if child.state == "Z" {
					zombies++
				}
			}
			s.zombies = max(s.zombies, zombies)
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
	}
}

// resident returns how many bytes of memory a process has.
func resident(pid int) int {
	kib, _ := strconv.Atoi(strings.TrimSuffix(statusOf(pid, "VmRSS"), " kB"))
	return kib << 10
}
