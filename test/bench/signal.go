package main

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"syscall"
	"time"
)

// signalled is an app that says when a signal has reached it, under an init, or under none.
type signalled struct {
	name   string
	p      *process
	output *os.File
	took   sample
}

// signals measures how long a USR1 takes from whoever sends it to the init, through the init, to the app. There is a
// pause before each: an init sleeps most of its life.
func signals(ctx context.Context, b *bench) error {
	app := []string{b.program("actor"), "signalled"}
	all := []*contestant{{name: "crank", argv: append([]string{b.program("crank"), "--"}, app...)}}
	all = append(append(all, underInits(app...)...), &contestant{name: "no init", argv: app})
	var running []*signalled
	for _, c := range all {
		s := &signalled{name: c.name}
		if c.argv != nil {
			if err := s.start(b, c.argv); err != nil {
				return err
			}
			defer s.close()
		}
		running = append(running, s)
	}
	const batch = 50
	for range b.number(2000, 200) / batch {
		for _, s := range running {
			for range batch {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := s.signal(); err != nil {
					return err
				}
			}
		}
	}
	crank, show := running[0], func(s sample) string { return s.quartiles(microseconds) }
	what := b.reach("signal", compareSamples(crank.took, running[1].name, running[1].took, show))
	for _, s := range running[2:] {
		b.beside(what, compareSamples(crank.took, s.name, s.took, show))
	}
	return nil
}

func (s *signalled) start(b *bench, argv []string) error {
	output, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	s.output = output
	if s.p, err = b.start(options{stdout: out}, argv...); err != nil {
		return err
	}
	_, err = s.read() // it is ready
	return err
}

func (s *signalled) close() {
	s.p.stop(syscall.SIGTERM)
	s.output.Close()
}

// read returns the time at which a signal has come.
func (s *signalled) read() (int64, error) {
	buf := make([]byte, 8)
	s.output.SetReadDeadline(deadline())
	if _, err := io.ReadFull(s.output, buf); err != nil {
		return 0, s.p.fail(err)
	}
	return int64(binary.LittleEndian.Uint64(buf)), nil
}

// signal sends one, if there is somebody to send it to.
func (s *signalled) signal() error {
	if s.p == nil {
		return nil
	}
	time.Sleep(time.Millisecond)
	began := now()
	if err := s.p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	came, err := s.read()
	if err == nil {
		s.took = append(s.took, float64(came-began))
	}
	return err
}
