package faults

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/crankctl/crank/test/disguise"
	"github.com/crankctl/crank/test/processes"
)

// orphanFaults are orphans that keep crank from finding out which generation they belong to. They end on TERM.
func orphanFaults() []*fault {
	at := [moments]expectation{
		beforeStart: rare(starts, "they belong to no generation, and the loop does not wait to find that out"),
		starting:    rare(swaps, "they belong to no generation, and the loop does not wait to find that out"),
		settling:    rare(swaps, "they belong to no generation, and the loop does not wait to find that out"),
		ready:       often(swaps, "they belong to no generation, and the loop does not wait to find that out"),
		draining:    rare(servesOn, "they do not count as leftover processes of the draining generation"),
		stopping:    often(endsWith(0), "they are asked to stop once no generation is left"),
	}
	return []*fault{
		{
			name:   "orphans with an environment of 64 GiB send messages",
			setup:  func(c *cell) { disguising(c, 3, disguise.Huge, "STATUS=from an orphan") },
			inject: func(c *cell) { c.giveOrphans(3) },
			check:  (*cell).didNotStall,
			at:     at,
		},
		{
			name:   "300 orphans whose environment reads as empty",
			setup:  func(c *cell) { disguising(c, 300, disguise.Empty, "") },
			inject: func(c *cell) { c.giveOrphans(300) },
			check:  (*cell).didNotStall,
			at:     at,
		},
	}
}

// disguising makes the app start orphans that show an environment other than their own.
func disguising(c *cell, n int, what, says string) {
	ordering(c, "disguise")
	more := []string{"-disguised", fmt.Sprint(n), "-disguise", what, "-disguised-says", says}
	switch c.moment {
	case starting, settling:
		c.candidate = append(c.candidate, more...)
	default:
		c.app = append(c.app, more...)
	}
}

// giveOrphans gives the order, and waits until the orphans exist. None may be left at the end of the test.
func (c *cell) giveOrphans(n int) {
	c.Helper()
	c.give()
	if c.moment == beforeStart {
		return // before READY=1
	}
	var orphans []int
	c.eventually("the orphans exist", func() error {
		if orphans = c.orphans(); len(orphans) < n {
			return fmt.Errorf("%d of %d", len(orphans), n)
		}
		return nil
	})
	c.Cleanup(func() {
		for _, pid := range orphans {
			if !isOrphan(pid) {
				continue
			}
			if syscall.Kill(pid, syscall.SIGKILL) == nil && c.over() && !c.Failed() {
				c.Error("an orphan is left")
			}
		}
	})
}

// orphans returns the orphans of the app that crank has adopted.
func (c *cell) orphans() (found []int) {
	for _, pid := range processes.Children(c.pid()) {
		if isOrphan(pid) {
			found = append(found, pid)
		}
	}
	return found
}

func isOrphan(pid int) bool {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.HasPrefix(string(name), "app-orphan")
}

// didNotStall: crank would take a stall of its loop for a suspension, and count a clock gap.
func (c *cell) didNotStall(outcome) {
	c.Helper()
	if c.over() || c.http == "" {
		return
	}
	client := http.Client{Timeout: c.patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + c.http + "/metrics")
	c.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	c.must(err)
	if !strings.Contains(string(body), "\ncrank_clock_gaps_total 0\n") {
		c.Error("crank thinks it was suspended")
	}
}
