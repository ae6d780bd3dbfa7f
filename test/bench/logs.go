package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// logger is a program that takes lines and writes them to a file with a time before each.
type logger struct {
	name string
	// run starts it with a producer of lines, waits until all are in a file in dir, and returns that file.
	run  func(b *bench, dir string, producer []string) (file string, err error)
	rate sample // lines a second
}

func loggers() []*logger {
	return []*logger{
		{name: "crank", run: runTagger},                                     // 2026-11-22T12:00:00.000Z app[1] 57 out | text
		{name: "s6-log", run: runLogger("s6-log", "n1", "s268435455", "t")}, // @400000006742..., no rotation below 256 MiB
		{name: "svlogd", run: runLogger("svlogd", "-tt")},                   // 2026-11-22_12:00:00.00000
	}
}

// logs measures how many lines a second go through, with all that a line is given on its way: from the start of
// logger and producer until all is in a file on tmpfs. crank is the producer's parent and reads a pipe of its own
// making; s6-log and svlogd are given one.
func logs(ctx context.Context, b *bench) error {
	for _, how := range []string{"block", "each"} {
		n := b.number(1_000_000, 100_000)
		if how == "each" {
			n /= 2
		}
		all := loggers()
		const runs = 5
		for range runs {
			for _, l := range all {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := l.measure(b, n, []string{b.program("actor"), "lines", fmt.Sprint(n), how}); err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
			}
		}
		for _, l := range all[1:] {
			r := compareSamples(all[0].rate, l.name, l.rate, func(s sample) string { return s.extremes(thousands) })
			if how == "block" {
				b.reach("logs "+l.name, r)
			} else {
				b.beside("the same, lines written one by one", r)
			}
		}
	}
	return nil
}

func (l *logger) measure(b *bench, n int, producer []string) error {
	if _, ok := find(l.name); !ok && l.name != "crank" {
		return nil
	}
	dir, err := os.MkdirTemp(b.dir, "logs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	file, err := l.run(b, dir, producer)
	took := time.Since(began)
	if err != nil {
		return err
	}
	if err := checkLines(file, n); err != nil {
		return err
	}
	l.rate = append(l.rate, float64(n)/took.Seconds())
	return nil
}

// checkLines makes sure that all lines are there.
func checkLines(file string, n int) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := 0
	for _, c := range text {
		if c == '\n' {
			lines++
		}
	}
	if lines != n {
		return fmt.Errorf("%d lines were written, %d are in %s", n, lines, file)
	}
	return nil
}

func runTagger(b *bench, dir string, producer []string) (string, error) {
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		return "", err
	}
	defer out.Close()
	p, err := b.start(options{stdout: out}, append([]string{b.program("crank"), "-output", "tag", "--"}, producer...)...)
	if err != nil {
		return "", err
	}
	return out.Name(), p.wait(patience)
}

func runLogger(name string, flags ...string) func(*bench, string, []string) (string, error) {
	return func(b *bench, dir string, producer []string) (string, error) {
		in, out, err := os.Pipe()
		if err != nil {
			return "", err
		}
		defer in.Close()
		defer out.Close()
		if err := os.WriteFile(filepath.Join(dir, "config"), []byte("s0\n"), 0o644); err != nil { // svlogd: no rotation
			return "", err
		}
		path, _ := find(name)
		l, err := b.start(options{stdin: in}, slices.Concat([]string{path}, flags, []string{dir})...)
		if err != nil {
			return "", err
		}
		p, err := b.start(options{stdout: out}, producer...)
		if err != nil {
			return "", err
		}
		out.Close()
		if err := p.wait(patience); err != nil {
			return "", err
		}
		return filepath.Join(dir, "current"), l.wait(patience)
	}
}
