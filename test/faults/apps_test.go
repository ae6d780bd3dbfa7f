package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/processes"
)

// appFaults are what the app does.
func appFaults() []*fault {
	return []*fault{
		{
			name:  "the app forks a daemon and exits 0",
			setup: func(c *cell) { ordering(c, "daemon") },
			inject: func(c *cell) {
				if c.give(); c.moment == starting {
					c.eventually("the candidate has exited", func() error { return inState(c.main(c.tried), "") })
				}
			},
			at: [moments]expectation{
				beforeStart: rare(endsWith(1), "the launched process was the app: it has ended before it was ready, and the daemon is ended too"),
				starting:    often(servesOn, "the candidate has exited before it was ready; the daemon is ended"),
				settling:    rare(servesOn, "the candidate has exited; the daemon is ended"),
				ready:       often(endsWith(0), "the app has ended, and the daemon is ended too"),
				draining:    rare(servesOn, "the leaving one has ended, and its daemon is ended too"),
				stopping:    rare(endsWith(0), "the daemon is ended too"),
			},
		},
		{
			name:   "the app forks a daemon and exits 0 while no descriptor is left",
			setup:  func(c *cell) { ordering(c, "daemon") },
			inject: (*cell).giveBlind,
			at: [moments]expectation{
				beforeStart: none("crank does not start then"),
				starting:    rare(servesOn, "as with descriptors, once there are some"),
				settling:    rare(servesOn, "as with descriptors, once there are some"),
				ready:       rare(endsWith(0), "as with descriptors, once there are some"),
				draining:    often(servesOn, "as with descriptors, once there are some"),
				stopping:    often(endsWith(0), "as with descriptors, once there are some"),
			},
		},
		{
			name:  "the app double-forks and goes on",
			setup: func(c *cell) { ordering(c, "double-fork") },
			inject: func(c *cell) {
				if c.give(); c.moment != beforeStart {
					c.eventually("crank has adopted it", c.adopted)
				}
			},
			at: [moments]expectation{
				beforeStart: rare(starts, "the process in the background belongs to the generation"),
				starting:    rare(swaps, "the process in the background belongs to the generation"),
				settling:    rare(swaps, "the process in the background belongs to the generation"),
				ready:       often(swaps, "what the old one has started is asked to stop with it, and killed at -stop"),
				draining:    rare(servesOn, "what it has started ignores TERM and is killed at -stop"),
				stopping:    rare(endsWith(0), "what it has started is killed at -stop"),
			},
		},
		{
			name: "the app ignores TERM",
			setup: func(c *cell) {
				c.flags = append(c.flags, "-stop", "1s")
				c.app = append(c.app[:1:1], "-ignore-term")
				c.candidate = append(c.candidate, "-ignore-term")
			},
			at: [moments]expectation{
				beforeStart: none("nobody is asked to end"),
				starting:    rare(swaps, "the old one is killed at -stop"),
				settling:    rare(swaps, "the old one is killed at -stop"),
				ready:       rare(swaps, "the old one is killed at -stop"),
				draining:    often(kills, "it is killed at -stop"),
				stopping:    often(endsWith(137), "it is killed at -stop"),
			},
		},
		{
			name: "the app stops itself (SIGSTOP)",
			setup: func(c *cell) {
				c.flags = append(c.flags, "-stop", "1s", "-start", "2s")
				ordering(c, "stop")
			},
			inject: func(c *cell) {
				switch c.give(); c.moment {
				case beforeStart:
				case starting, settling:
					c.eventually("the candidate has stopped itself", func() error { return inState(c.main(c.tried), "T") })
				default:
					c.eventually("the app has stopped itself", func() error { return inState(c.main(1), "T") })
				}
			},
			silent: true,
			at: [moments]expectation{
				beforeStart: rare(endsWith(124), "it is not ready in time, and is killed"),
				starting:    often(servesOn, "the candidate is not ready in time, and is killed"),
				settling:    rare(swaps, "a candidate that has said READY=1 is believed, unless it has a watchdog; it waits with what it has accepted"),
				ready:       often(swaps, "crankctl reload puts another one in its place; the stopped one is killed at -stop"),
				draining:    rare(kills, "it is killed at -stop"),
				stopping:    rare(endsWith(137), "it is killed at -stop"),
			},
		},
		{
			name: "the app exits in the moment of its READY=1",
			setup: func(c *cell) {
				last := []string{"-exit", "3", "-exit-when-settling"}
				c.flags = append(c.flags, "-settle", "3s") // for a machine that is slow to carry out the exit
				switch c.moment {
				case beforeStart:
					c.app = append(c.app, last...)
				default:
					c.candidate = append(c.candidate, last...)
				}
			},
			at: [moments]expectation{
				beforeStart: often(endsWith(3), "it was current and has ended"),
				starting:    often(servesOn, "the candidate has failed, whatever it said"),
				settling:    none("READY=1 was said before"),
				ready:       often(servesOn, "the candidate has failed, whatever it said"),
				draining:    none("READY=1 was said before"),
				stopping:    none("no candidate is started any more"),
			},
		},
		{
			name: "the current one is killed in the moment of the candidate's READY=1",
			inject: func(c *cell) {
				c.candidate = append(c.candidate, "-kill-at-ready", fmt.Sprint(c.main(1)))
			},
			at: [moments]expectation{
				beforeStart: none("none serves"),
				starting:    none("this is the moment that follows"),
				settling:    none("READY=1 was said before"),
				ready:       often(swaps, "the candidate is current at once, without settling"),
				draining:    none("READY=1 was said before"),
				stopping:    none("no candidate is started any more"),
			},
		},
		{
			name:   "the current one is killed",
			inject: (*cell).killCurrent,
			silent: true,
			at: [moments]expectation{
				beforeStart: none("none serves"),
				starting:    often(swaps, "crank is not ready until the candidate is; the queue of the socket keeps connections"),
				settling:    often(swaps, "the candidate is current at once"),
				ready:       often(endsWith(137), "without -restart crank ends with the app's code"),
				draining:    rare(endsWith(137), "without -restart crank ends with the app's code; the leaving one drains"),
				stopping:    rare(endsWith(137), "crank ends with the app's code"),
			},
		},
		{
			name:   "the current one is killed, -restart always",
			setup:  func(c *cell) { c.flags = append(c.flags, "-restart", "always") },
			inject: (*cell).killCurrent,
			silent: true,
			at: [moments]expectation{
				beforeStart: none("none serves"),
				starting:    rare(swaps, "crank is not ready until the candidate is; the queue of the socket keeps connections"),
				settling:    rare(swaps, "the candidate is current at once"),
				ready:       often(restarts, "another one is started after 0.1 s"),
				draining:    rare(restarts, "another one is started after 0.1 s; the leaving one drains"),
				stopping:    rare(endsWith(137), "crank ends with the app's code"),
			},
		},
	}
}

// ordering has the app, or at a moment of its own the candidate, carry out an order when it is given.
func ordering(c *cell, what string) {
	order := []string{"-order", what, "-orphan-life", "5m"}
	if c.moment != beforeStart {
		order = append(order, "-order-when", c.gate("order"))
	}
	switch c.moment {
	case starting, settling:
		c.candidate = append(c.candidate, order...)
	default:
		c.app = append(c.app, order...)
	}
	c.flags = append(c.flags, "-stop", "5s")
}

// give gives the order; before the start it stands in the command itself.
func (c *cell) give() {
	if c.moment != beforeStart {
		c.open("order")
	}
}

// giveBlind gives the order while crank has no descriptor to look for what the app leaves behind, and ends that once crank
// has tried.
func (c *cell) giveBlind() {
	c.Helper()
	c.limit(unix.RLIMIT_NOFILE, 1)
	c.give()
	c.eventually("crank cannot look for the daemon", func() error {
		log, err := os.ReadFile(filepath.Join(c.dir, "log"))
		if err == nil && !strings.Contains(string(log), "cannot look for ") {
			err = errors.New("it does not say so")
		}
		return err
	})
	c.undo()
}

// adopted reports whether crank has a child that is no generation's main process.
func (c *cell) adopted() error {
	for _, pid := range c.processes() {
		if _, parent := processes.Stat(pid); parent == c.pid() && isOrphan(pid) {
			return nil
		}
	}
	return errors.New("it has none")
}

// killCurrent kills the one that serves.
func (c *cell) killCurrent() {
	c.Helper()
	c.victim = 1
	if c.moment == draining {
		c.victim = 2
	}
	c.must(syscall.Kill(c.main(c.victim), syscall.SIGKILL))
}
