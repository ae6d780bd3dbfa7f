package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/control"
)

// TestCPULimit: crank exceeds its CPU time (ulimit -t). The kernel then sends it XCPU each second.
func TestCPULimit(t *testing.T) {
	c := newLimitCell(t)
	c.limited("-S -t 1")
	stop := c.burn()
	defer stop()
	c.eventually("crank has used a second", func() error {
		var limit unix.Rlimit
		if err := unix.Prlimit(c.pid(), unix.RLIMIT_CPU, nil, &limit); err != nil || limit.Cur < 2 {
			return fmt.Errorf("the limit is %d: %w", limit.Cur, err) // the kernel raises it with each signal
		}
		return nil
	})
	stop()
	c.awaitLogged("SIGXCPU")
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	_, err := c.client.Run(ctx, control.RunRequest{Command: []string{"sh", "-c", `ulimit -St >"$0"; ` + telling, c.app[3]}}, nil)
	c.must(err)
	c.tells("1") // the app has the limit that crank was started with
	c.tells("up")
	c.undisturbed(syscall.SIGXCPU, "XCPU")
}

// TestVirtualTimer: crank inherits a timer of its CPU time, which execve(2) preserves.
func TestVirtualTimer(t *testing.T) {
	if why := withoutProgram("perl")(); why != "" {
		t.Skip("NOT TESTED: " + why)
	}
	c := newLimitCell(t)
	c.wrap = []string{"perl", "-MTime::HiRes=setitimer,ITIMER_VIRTUAL", "-e", "setitimer(ITIMER_VIRTUAL, 0.2, 0.2); exec @ARGV"}
	c.start()
	c.tells("up")
	stop := c.burn()
	defer stop()
	c.eventually("crank has used some CPU time", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid()))
		c.must(err)
		_, fields, _ := strings.Cut(string(stat), ") ")
		if ticks, err := strconv.Atoi(strings.Fields(fields)[11]); err != nil || ticks < 50 { // in user mode, of which 100 are a second
			return fmt.Errorf("%d ticks: %w", ticks, err)
		}
		return nil
	})
	stop()
	c.undisturbed(syscall.SIGVTALRM, "VTALRM")
}

// burn requests the metrics until stop is called.
func (c *limitCell) burn() (stop func()) {
	_, address, _ := strings.Cut(c.info().HTTP, "://")
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: c.patience}
			for ctx.Err() == nil {
				if response, err := client.Get("http://" + address + "/metrics"); err == nil {
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}
