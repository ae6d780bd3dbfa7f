package main

import (
	"context"
	"os"
)

// contestant is one of several command lines that are run in turns; with no argv, one that is not installed.
type contestant struct {
	name string
	argv []string
	took sample // nanoseconds
	cpu  sample
}

// inits are the peers that start one command, and how they are told to. tini would write a warning without -s,
// which makes it a subreaper, as crank becomes one by itself. The targets are about the first.
var inits = []struct {
	name  string
	flags []string
}{
	{"tini", []string{"-s", "--"}},
	{"dumb-init", []string{"--"}},
	{"catatonit", []string{"--"}},
}

// underInits returns a command under each of the inits.
func underInits(command ...string) (all []*contestant) {
	for _, i := range inits {
		c := &contestant{name: i.name}
		if path, ok := find(i.name); ok {
			c.argv = append(append([]string{path}, i.flags...), command...)
		}
		all = append(all, c)
	}
	return all
}

// start measures the whole life of an init whose app does nothing: what it costs to have it.
func start(ctx context.Context, b *bench) error {
	command, _ := lookup("true")
	alone := &contestant{name: "`true` alone", argv: []string{command}}
	floor := &contestant{name: "the least in Go, with net/http and client_golang", argv: []string{b.program("floor"), command}}
	plain := &contestant{name: "crank", argv: []string{b.program("crank"), "--", command}}
	socket := &contestant{name: "crank", argv: []string{b.program("crank"), "-bind", "127.0.0.1:0", "-ready", "none", "--", command}}
	others := underInits(command)
	if err := b.checkListenPID(); err != nil {
		return err
	}
	if err := b.inTurns(ctx, b.number(500, 40), append(others, alone, floor, plain, socket)...); err != nil {
		return err
	}
	what := b.reach("start", compare(plain, others[0]))
	for _, o := range append(others[1:], floor, alone) {
		b.beside(what, compare(plain, o))
	}
	b.reach("start with a socket", compare(socket, others[0]))
	return nil
}

// inTurns runs every contestant n times, in turns, and once before without being counted.
func (b *bench) inTurns(ctx context.Context, n int, all ...*contestant) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for run := range n + 1 {
		for _, c := range all {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if c.argv == nil {
				continue
			}
			w, err := runWhole(null, environment(), c.argv...)
			if err != nil {
				return err
			}
			if run > 0 {
				c.took, c.cpu = append(c.took, float64(w.took)), append(c.cpu, float64(w.cpu))
			}
		}
	}
	return nil
}

// checkListenPID makes sure that what is measured is what it is said to be.
func (b *bench) checkListenPID() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	_, err = runWhole(null, environment(), b.program("crank"), "-bind", "127.0.0.1:0", "-ready", "none", "--",
		"/bin/sh", "-c", `[ "$LISTEN_PID" = $$ ] && [ "$LISTEN_FDS" = 1 ]`)
	return err
}

func compare(crank, other *contestant) row {
	r := compareSamples(crank.took, other.name, other.took, func(s sample) string { return s.quartiles(milliseconds) })
	r.crank += ", CPU " + milliseconds.text(crank.cpu.median())
	if len(other.cpu) > 0 {
		r.other += ", CPU " + milliseconds.text(other.cpu.median())
	}
	return r
}
