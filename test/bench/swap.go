package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"syscall"
)

// swaps measures what crank adds to a swap. In turns: a swap of an app that is ready at once; a bare start of `true`
// by pkg/proc, the code that crank starts its app with, from the call until its status is taken; and a bare start
// of the app likewise, from its exec to its READY, which is the app's own time. That one's median is taken off
// every swap.
func swaps(ctx context.Context, b *bench) error {
	r, err := b.openReports()
	if err != nil {
		return err
	}
	defer r.close()
	i, err := b.startCrank(ctx, options{env: []string{r.variable()}},
		[]string{"-bind", "127.0.0.1:0", "-settle", "0"}, b.program("actor"), "swapped")
	if err != nil {
		return err
	}
	defer i.stop(syscall.SIGTERM)
	if _, _, _, err := r.next(); err != nil {
		return err
	}
	s, err := b.startStarter(r)
	if err != nil {
		return err
	}
	defer s.close()

	t := swapTimes{}
	const warm = 10
	for n := range b.number(2000, 100) + warm {
		if n == warm {
			t = swapTimes{}
		}
		if err := t.measure(ctx, i, r, s); err != nil {
			return err
		}
	}
	b.showSwaps(t)
	return nil
}

// swapTimes are what was measured in turns.
type swapTimes struct {
	whole, told sample // of a swap: until the old app was told to stop, and of that the time since READY
	bare, own   sample // a bare start of `true`, and the app's own time
}

// measure swaps once, and makes both bare starts.
func (t *swapTimes) measure(ctx context.Context, i *instance, r *reports, s *starter) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	began, err := i.reload()
	if err != nil {
		return i.fail(err)
	}
	ready, stop, err := r.swapped()
	if err != nil {
		return i.fail(err)
	}
	bare, err := s.bareTrue()
	if err != nil {
		return err
	}
	own, err := s.bareApp(r)
	if err != nil {
		return err
	}
	t.whole, t.told = append(t.whole, float64(stop-began)), append(t.told, float64(stop-ready))
	t.bare, t.own = append(t.bare, bare), append(t.own, own)
	return nil
}

func (b *bench) showSwaps(t swapTimes) {
	var added sample
	for _, took := range t.whole {
		added = append(added, took-t.own.median())
	}
	show := func(s sample) string { return s.quartiles(milliseconds) }
	b.reach("swap", compareSamples(added, "a bare start of `true`", t.bare, show))
	p99 := added.quantile(0.99) / added.median()
	b.reach("swap p99", row{
		crank: milliseconds.text(added.quantile(0.99)), peer: "its p50", other: milliseconds.text(added.median()), ratio: p99, value: p99,
	})
	b.beside("the whole swap", compareSamples(t.whole, "the app's own time", t.own, show))
	b.beside("of it, from READY to the stop signal", compareSamples(t.told, "a bare start of `true`", t.bare, show))
}

// starter is a small process that starts others as crank does.
type starter struct {
	*process
	orders *os.File
	answer *bufio.Reader
	output *os.File
}

func (b *bench) startStarter(r *reports) (*starter, error) {
	in, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	output, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	command, _ := lookup("true")
	p, err := b.start(options{env: []string{r.variable()}, stdin: in, stdout: out}, b.program("starter"), command, b.program("actor"))
	return &starter{p, orders, bufio.NewReader(output), output}, err
}

func (s *starter) close() {
	s.orders.Close()
	_ = s.wait(patience)
	s.output.Close()
}

// ask sends an order and reads a number.
func (s *starter) ask(order string) (n int64, err error) {
	if _, err := fmt.Fprintln(s.orders, order); err != nil {
		return 0, s.fail(err)
	}
	s.output.SetReadDeadline(deadline())
	if _, err := fmt.Fscanln(s.answer, &n); err != nil {
		return 0, s.fail(err)
	}
	return n, nil
}

// bareTrue returns how long a start of `true` takes, to its end.
func (s *starter) bareTrue() (float64, error) {
	n, err := s.ask("true")
	return float64(n), err
}

// bareApp returns how long the app takes from its exec to READY.
func (s *starter) bareApp(r *reports) (float64, error) {
	executed, err := s.ask("app")
	if err != nil {
		return 0, err
	}
	_, _, ready, err := r.next()
	if err != nil {
		return 0, s.fail(err)
	}
	if _, err := fmt.Fprintln(s.orders, "end"); err != nil {
		return 0, s.fail(err)
	}
	_, _, _, err = r.next() // that it was told to stop
	return float64(ready - executed), err
}
