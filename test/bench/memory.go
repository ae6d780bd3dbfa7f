package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// usage is what a program and its own processes have of the memory, in bytes.
type usage struct {
	rss       float64 // resident, what it shares with others included
	pss       float64 // the same, but shared pages by the number of those that share them
	anonymous float64 // of rss: all but pages of files, which the kernel can drop and others can share
}

func (u usage) String() string {
	return fmt.Sprintf("%s (PSS %s, anonymous %s)", mebibytes.text(u.rss), mebibytes.number(u.pss), mebibytes.number(u.anonymous))
}

// memoryOf reads /proc/PID/smaps_rollup (proc(5)) of all processes.
func memoryOf(pids ...int) (sum usage, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return sum, err
		}
		u := parseRollup(string(text))
		sum.rss, sum.pss, sum.anonymous = sum.rss+u.rss, sum.pss+u.pss, sum.anonymous+u.anonymous
	}
	return sum, nil
}

func parseRollup(text string) (u usage) {
	for line := range strings.Lines(text) {
		var kib float64
		field, rest, _ := strings.Cut(line, ":")
		fmt.Sscan(rest, &kib)
		switch field {
		case "Rss":
			u.rss = kib * 1024
		case "Pss":
			u.pss = kib * 1024
		case "Anonymous":
			u.anonymous = kib * 1024
		}
	}
	return u
}

// manager is a peer as it is in use, with one app, which is not counted.
type manager struct {
	peer  string
	start func(b *bench, dir string) (*process, error)
}

const idleApp = "sleep"

var managers = []manager{
	{"tini", func(b *bench, _ string) (*process, error) { return b.startInit("tini") }},
	{"dumb-init", func(b *bench, _ string) (*process, error) { return b.startInit("dumb-init") }},
	{"catatonit", func(b *bench, _ string) (*process, error) { return b.startInit("catatonit") }},
	{"s6", func(b *bench, dir string) (*process, error) { return b.startScan("s6", dir) }},
	{"runit", func(b *bench, dir string) (*process, error) { return b.startScan("runit", dir) }},
	{"supervisor", func(b *bench, dir string) (*process, error) {
		path, _ := find("supervisor")
		conf := filepath.Join(dir, "supervisord.conf")
		err := os.WriteFile(conf, []byte("[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile="+
			filepath.Join(dir, "pid")+"\n[program:app]\ncommand="+idleApp+" infinity\n"), 0o644)
		if err != nil {
			return nil, err
		}
		return b.start(options{dir: dir}, path, "-c", conf)
	}},
	{"Server::Starter", func(b *bench, _ string) (*process, error) {
		path, _ := find("Server::Starter")
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		return b.start(options{}, path, "--port", address, "--", idleApp, "infinity")
	}},
}

// startInit starts an init with the app.
func (b *bench) startInit(name string) (*process, error) {
	for _, c := range underInits(idleApp, "infinity") {
		if c.name == name {
			return b.start(options{}, c.argv...)
		}
	}
	panic("there is no init " + name)
}

// startScan starts a service manager that looks for services in a directory, each with a script named run.
func (b *bench) startScan(name, dir string) (*process, error) {
	path, _ := find(name)
	if err := os.MkdirAll(filepath.Join(dir, "app"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "app", "run"), []byte("#!/bin/sh\nexec "+idleApp+" infinity\n"), 0o755); err != nil {
		return nil, err
	}
	return b.start(options{}, path, dir)
}

// idleTime is how long nobody has asked crank for anything when it is idle.
const idleTime = 10 * time.Second

// memory measures a crank that is scraped and probed, what it is after many swaps, and what the peers need.
func memory(ctx context.Context, b *bench) error {
	r, err := b.openReports()
	if err != nil {
		return err
	}
	defer r.close()
	i, err := b.startCrank(ctx, options{env: []string{r.variable()}},
		[]string{"-bind", "127.0.0.1:0", "-http", "127.0.0.1:0", "-settle", "0"}, b.program("actor"), "swapped")
	if err != nil {
		return err
	}
	defer i.stop(syscall.SIGTERM)
	if _, _, _, err := r.next(); err != nil {
		return err
	}
	busy, idle, err := b.busyAndIdle(ctx, i)
	if err != nil {
		return err
	}

	swaps := b.number(10_000, 500)
	early, err := b.afterSwaps(ctx, i, r, swaps/10)
	if err != nil {
		return err
	}
	late, err := b.afterSwaps(ctx, i, r, swaps-swaps/10)
	if err != nil {
		return err
	}
	what := b.reach("memory", row{crank: fmt.Sprintf("%v; right after a scrape %v", idle, busy), ratio: math.NaN(), value: idle.rss / mebibytes.size})
	if err := b.managers(ctx, what, idle); err != nil {
		return err
	}
	b.reach("growth", row{
		crank: fmt.Sprintf("%d swaps: %v", swaps, late), peer: "itself", other: fmt.Sprintf("%d swaps: %v", swaps/10, early),
		ratio: math.NaN(), value: (late.rss - early.rss) / mebibytes.size,
	})
	return nil
}

// busyAndIdle returns what crank has right after it was scraped and probed, and when it has been left alone then.
func (b *bench) busyAndIdle(ctx context.Context, i *instance) (busy, idle usage, err error) {
	fresh, err := memoryOf(i.pid())
	if err != nil {
		return busy, idle, err
	}
	if err = i.probed(ctx, 10); err != nil {
		return busy, idle, err
	}
	if busy, err = memoryOf(i.pid()); err != nil {
		return busy, idle, err
	}
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return busy, idle, ctx.Err()
	}
	idle, err = memoryOf(i.pid())
	b.say("  just started: %v; after 10 scrapes and 10 probes: %v; idle: %v", fresh, busy, idle)
	return busy, idle, err
}

// probed asks what a kubelet and a Prometheus ask, n times.
func (i *instance) probed(ctx context.Context, n int) error {
	info, err := i.client.Info(ctx)
	if err != nil {
		return err
	}
	_, address, _ := strings.Cut(info.HTTP, "://")
	for range n {
		for _, path := range []string{"/metrics", "/readyz"} {
			answer, err := http.Get("http://" + address + path)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s: %w", path, answer.Status, err)
			}
		}
	}
	return nil
}

// afterSwaps swaps n times and returns what crank has then: the medians over the last tenth of them, since a heap
// grows and shrinks.
func (b *bench) afterSwaps(ctx context.Context, i *instance, r *reports, n int) (usage, error) {
	var rss, pss, anonymous sample
	for done := range n {
		if ctx.Err() != nil {
			return usage{}, ctx.Err()
		}
		if _, err := i.reload(); err != nil {
			return usage{}, i.fail(err)
		}
		if _, _, err := r.swapped(); err != nil {
			return usage{}, i.fail(err)
		}
		if done%100 == 99 { // as it is in use
			if err := i.probed(ctx, 1); err != nil {
				return usage{}, err
			}
		}
		if done < n-n/10 {
			continue
		}
		u, err := memoryOf(i.pid())
		if err != nil {
			return usage{}, err
		}
		rss, pss, anonymous = append(rss, u.rss), append(pss, u.pss), append(anonymous, u.anonymous)
	}
	return usage{rss.median(), pss.median(), anonymous.median()}, nil
}

// managers adds the memory of each peer with one app.
func (b *bench) managers(ctx context.Context, what string, crank usage) error {
	for _, m := range managers {
		r := row{crank: crank.String(), peer: m.peer, other: "not installed", ratio: math.NaN()}
		if _, ok := find(m.peer); ok {
			u, err := b.memoryOfManager(ctx, m)
			if err != nil {
				return fmt.Errorf("%s: %w", m.peer, err)
			}
			r.other, r.ratio = u.String(), crank.rss/u.rss
		}
		b.beside(what, r)
	}
	return nil
}

// memoryOfManager starts a manager, waits for its app, and counts every process but that.
func (b *bench) memoryOfManager(ctx context.Context, m manager) (usage, error) {
	dir, err := os.MkdirTemp(b.dir, "manager-")
	if err != nil {
		return usage{}, err
	}
	p, err := m.start(b, dir)
	if err != nil {
		return usage{}, err
	}
	defer p.stop(syscall.SIGTERM)
	var own []int
	err = eventually(func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		own = nil
		apps := 0
		for _, pid := range descendants(p.pid()) {
			if comm(pid) == idleApp {
				apps++
			} else {
				own = append(own, pid)
			}
		}
		if apps != 1 {
			return p.fail(fmt.Errorf("it runs %d apps", apps))
		}
		return nil
	})
	if err != nil {
		return usage{}, err
	}
	return memoryOf(own...)
}
