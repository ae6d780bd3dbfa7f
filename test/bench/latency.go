package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
)

// The load: as many requests on kept connections as on connections of their own, none of which is ever repeated.
var load = hammer.Load{Network: "tcp", KeepAlive: 4, Short: 4, Timeout: 10 * time.Second}

const (
	share     = 0.20                    // of what the server can do at most
	swapEvery = 1500 * time.Millisecond // crank settles for a second, Server::Starter waits one
)

// race is one server under load, and what was measured.
type race struct {
	server
	*served
	rate        float64 // requests a second
	calm, swaps sample  // p99 in nanoseconds, of each round
	during      hammer.Report
	calmLost    int // requests that failed without a swap
	swapped     int
}

// latency measures what a client notices of swaps. An open loop begins requests at fixed times, however late the
// answers are, and counts from the time at which a request was to begin. Each round is a time without swaps and one
// with swaps, of crank and nginx in turns; of the others there are few. There are many short rounds, of which the
// medians are taken, since something else on the machine makes a p99 many times as long as it would be.
func latency(ctx context.Context, b *bench) error {
	crank, nginx := &race{server: servers[0]}, &race{server: servers[1]}
	if err := b.rounds(ctx, b.number(12, 2), crank, nginx); err != nil {
		return err
	}
	all := []*race{crank, nginx}
	for _, s := range servers[2:] {
		other := &race{server: s}
		if err := b.rounds(ctx, b.number(3, 1), other); err != nil {
			return err
		}
		all = append(all, other)
	}

	ours := crank.ratio()
	b.reach("latency", row{
		crank: crank.swaps.quartiles(milliseconds), peer: "itself without swaps", other: crank.calm.quartiles(milliseconds), ratio: ours, value: ours,
	})
	for _, r := range all[1:] {
		line := row{crank: digits(ours) + "x", peer: r.name, other: "not installed", ratio: math.NaN(), value: math.NaN()}
		if theirs := r.ratio(); len(r.calm) > 0 {
			line.other = fmt.Sprintf("%sx: %s, without %s", digits(theirs), milliseconds.text(r.swaps.median()), milliseconds.text(r.calm.median()))
			line.ratio = ours / theirs
			line.value = line.ratio
		}
		if r == nginx {
			b.reach("latency nginx", line)
		} else {
			b.beside(b.targets["latency nginx"].what, line)
		}
	}
	b.failures(all)
	return nil
}

// ratio is p99 with swaps beside p99 without.
func (r *race) ratio() float64 { return r.swaps.median() / r.calm.median() }

// failures adds the rows of the requests that failed.
func (b *bench) failures(all []*race) {
	crank := all[0]
	what := b.reach("failed", row{crank: crank.failed(), ratio: math.NaN(), value: float64(crank.during.Lost)})
	for _, r := range all[1:] {
		b.beside(what, row{peer: r.name, other: cmp.Or(r.failed(), "not installed"), ratio: math.NaN()})
	}
}

// failed is "0 of 9000 in 6 swaps", with the ways in which they failed.
func (r *race) failed() string {
	if r.during.Requests == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d in %d swaps", r.during.Lost, r.during.Requests, r.swapped)
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(r.during.Kinds)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, r.during.Kinds[kind]))
	}
	if r.during.LostKept > 0 {
		kinds = append(kinds, fmt.Sprintf("%d of them on a kept connection", r.during.LostKept))
	}
	if r.calmLost > 0 {
		kinds = append(kinds, fmt.Sprintf("and %d without a swap", r.calmLost))
	}
	if len(kinds) > 0 {
		text += ": " + strings.Join(kinds, ", ")
	}
	return text
}

// rounds starts the servers that are installed, and measures them in turns.
func (b *bench) rounds(ctx context.Context, n int, all ...*race) error {
	for _, r := range all {
		if !r.installed() {
			continue
		}
		var err error
		if r.served, err = r.start(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		defer r.stop()
		if err := r.capacity(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	for range n {
		for _, r := range all {
			if r.served == nil {
				continue
			}
			if err := r.round(ctx, b); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	return nil
}

// capacity finds how many requests a second the server can answer, from clients that ask as fast as they can, and
// takes a share of that.
func (r *race) capacity(ctx context.Context, b *bench) error {
	closed := load
	closed.Address = r.address
	run := hammer.Start(closed)
	began := time.Now()
	err := pause(ctx, time.Duration(b.number(4, 1))*time.Second)
	report := run.Stop()
	if err != nil {
		return err
	}
	if report.Lost > 0 {
		return fmt.Errorf("%d of %d requests failed before any swap: %v", report.Lost, report.Requests, report.Errors)
	}
	most := float64(report.Requests) / time.Since(began).Seconds()
	r.rate = share * most
	b.say("  %s answers %.0f requests a second; so the load is %.0f", r.name, most, r.rate)
	return nil
}

// round is a time without swaps, and one with.
func (r *race) round(ctx context.Context, b *bench) error {
	length := time.Duration(b.number(3, 2)) * swapEvery
	open := load
	open.Address, open.Rate = r.address, r.rate

	run := hammer.Start(open)
	err := pause(ctx, length)
	calm := run.Stop()
	if err != nil {
		return err
	}

	run = hammer.Start(open)
	err = r.swapFor(ctx, length)
	during := run.Stop()
	if err != nil {
		return err
	}
	r.add(calm, during)
	b.say("  %s: p99 %s, with swaps %s; %d of %d failed, %d without", r.name,
		milliseconds.text(float64(calm.P99)), milliseconds.text(float64(during.P99)), during.Lost, during.Requests, calm.Lost)
	return nil
}

// swapFor swaps again and again.
func (r *race) swapFor(ctx context.Context, length time.Duration) error {
	end := time.Now().Add(length)
	for next := time.Now(); next.Before(end); {
		next = next.Add(swapEvery)
		if err := r.swap(); err != nil {
			return err
		}
		r.swapped++
		if err := pause(ctx, time.Until(next)); err != nil {
			return err
		}
	}
	return nil
}

func (r *race) add(calm, during hammer.Report) {
	r.calmLost += calm.Lost
	r.calm, r.swaps = append(r.calm, float64(calm.P99)), append(r.swaps, float64(during.P99))
	if r.during.Kinds == nil {
		r.during.Kinds = map[hammer.Kind]int{}
	}
	r.during.Requests += during.Requests
	r.during.Lost += during.Lost
	r.during.LostKept += during.LostKept
	for kind, n := range during.Kinds {
		r.during.Kinds[kind] += n
	}
}

// pause sleeps, unless it is all over.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// command runs a program to its end.
func (b *bench) command(argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// bySignal returns a swap that is asked for by a signal.
func bySignal(p *process, sig syscall.Signal) func() error {
	return func() error { return p.cmd.Process.Signal(sig) }
}
