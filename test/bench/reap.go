package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/pid1/spec"
)

// mother is an app that makes orphans when told to, under an init that is PID 1 of a namespace.
type mother struct {
	name      string
	p         *process
	orders    *os.File
	output    *os.File
	lines     *bufio.Scanner
	rate, cpu sample // orphans a second; nanoseconds of the init's CPU time for each
}

// Each process that makes orphans makes so many, and ends.
const batch = "500"

// reap measures how fast orphans can be made and reaped. The app is `inside orphans` of test/pid1.
func reap(ctx context.Context, b *bench) error {
	app := []string{b.program("inside"), "orphans", "5000", batch}
	all := append([]*contestant{{name: "crank", argv: append([]string{b.program("crank"), "--"}, app...)}}, underInits(app...)...)
	var running []*mother
	for _, c := range all {
		m := &mother{name: c.name}
		if c.argv != nil {
			if err := m.start(b, c.argv); err != nil {
				return err
			}
			defer m.close()
		}
		running = append(running, m)
	}
	const runs = 5
	for range runs {
		for _, m := range running {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := m.make(b.number(40_000, 5_000)); err != nil {
				return err
			}
		}
	}
	crank := running[0]
	for n, m := range running[1:] {
		r := compareSamples(crank.rate, m.name, m.rate, func(s sample) string { return s.extremes(thousands) })
		r.crank += ", CPU " + microseconds.text(crank.cpu.median()) + " each"
		if len(m.cpu) > 0 {
			r.other += ", CPU " + microseconds.text(m.cpu.median()) + " each"
		}
		if n == 0 {
			b.reach("reap", r)
		} else {
			b.beside(b.targets["reap"].what, r)
		}
	}
	return nil
}

// start makes a container as test/pid1 does, with its help.
func (m *mother) start(b *bench, argv []string) error {
	in, orders, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	output, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	text, err := json.Marshal(spec.Spec{Argv: argv, Env: environment()})
	if err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN}}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	m.orders, m.output, m.lines = orders, output, bufio.NewScanner(output)
	if m.p, err = b.start(options{stdin: in, stdout: out, attr: attr}, b.program("inside"), "setup", string(text)); err != nil {
		return err
	}
	return m.alone()
}

// alone waits until the app is done and the only process beside the init.
func (m *mother) alone() error {
	m.output.SetReadDeadline(deadline())
	if !m.lines.Scan() {
		return m.p.fail(errors.New("it made no orphans"))
	}
	return eventually(func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.p.pid(), m.p.pid()))
		if err == nil && len(strings.Fields(string(text))) > 1 {
			err = errors.New("not all orphans were reaped")
		}
		return err
	})
}

// make makes n orphans and waits until all were reaped.
func (m *mother) make(n int) error {
	if m.p == nil {
		return nil
	}
	cpu, err := cpuOf(m.p.pid())
	if err != nil {
		return err
	}
	began := now()
	if _, err := fmt.Fprintln(m.orders, n); err != nil {
		return m.p.fail(err)
	}
	if err := m.alone(); err != nil {
		return err
	}
	took := now() - began
	more, err := cpuOf(m.p.pid())
	m.rate = append(m.rate, float64(n)/float64(took)*1e9)
	m.cpu = append(m.cpu, (more-cpu)/float64(n))
	return err
}

func (m *mother) close() {
	m.orders.Close()
	_ = m.p.wait(patience)
	m.output.Close()
}

// cpuOf returns the CPU time of a process in nanoseconds: the sum of its threads' in /proc/PID/task/TID/schedstat,
// which /proc/PID/stat would round to hundredths of a second.
func cpuOf(pid int) (sum float64, err error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, t := range threads {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/schedstat")
		if err != nil {
			return 0, err
		}
		var ran float64
		fmt.Sscan(string(text), &ran)
		sum += ran
	}
	return sum, nil
}
