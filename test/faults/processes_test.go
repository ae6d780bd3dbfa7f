package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/root"
)

// forker takes every process that it can get, as soon as it runs and for good. It needs no further thread itself.
const forker = `$SIG{TERM} = sub { exit 0 }; $| = 1;
for (;;) { my $p = fork; if (!defined $p) { select undef, undef, undef, 0.0005 } elsif (!$p) { $SIG{TERM} = "DEFAULT"; sleep 1000; exit } }`

// TestFewProcesses: an app that exhausts pids.max in its first moment does not end crank, which keeps answering.
func TestFewProcesses(t *testing.T) {
	for _, why := range []string{withoutPidsCgroup(), withoutProgram("perl")()} {
		if why != "" {
			t.Skip("NOT TESTED: " + why)
		}
	}
	for _, limit := range []int{20, 24, 32, 48, 64, 72} {
		for i := range 4 {
			t.Run(fmt.Sprintf("%d/%d", limit, i), func(t *testing.T) {
				t.Parallel()
				c := newForkerCell(t)
				group := c.group()
				c.write(group, "pids.max", strconv.Itoa(limit))
				c.inGroup(group)
				c.survives(func() bool { return c.read(group, "pids.current") == strconv.Itoa(limit) })
			})
		}
	}
}

// TestFewProcessesOfUser is the same with ulimit -u.
func TestFewProcessesOfUser(t *testing.T) {
	for _, why := range []string{withoutProgram("prlimit")(), withoutProgram("perl")()} {
		if why != "" {
			t.Skip("NOT TESTED: " + why)
		}
	}
	if !root.Full() {
		t.Skip("NOT TESTED: ulimit -u: only root can start crank as a user that has no other processes")
	}
	for _, limit := range []int{20, 32, 48, 72} {
		for i := range 4 {
			t.Run(fmt.Sprintf("%d/%d", limit, i), func(t *testing.T) {
				t.Parallel()
				c := newForkerCell(t)
				c.anotherUser()
				c.wrap = []string{"prlimit", fmt.Sprintf("--nproc=%d", limit)}
				c.survives(func() bool { return c.threadsOfUser() >= limit })
			})
		}
	}
}

func newForkerCell(t *testing.T) *cell {
	c := newCell(t, &fault{}, ready)
	c.app = []string{"perl", "-e", forker}
	c.flags = append(c.flags, "-ready", "none", "-http", "unix://"+c.gate("http"))
	return c
}

// survives starts crank, waits until the app has taken all processes, requests everything on many connections, and ends crank.
func (c *cell) survives(full func() bool) {
	c.Helper()
	c.start()
	c.eventually("the app has taken all processes", func() error {
		switch {
		case c.over():
			return errEnded
		case !full():
			return errors.New("some are still free")
		}
		return nil
	})
	stop := c.askForEverything()
	c.eventually("requests are answered", func() error {
		if c.over() {
			return errEnded
		}
		if n := c.answered.Load(); n < 300 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	c.Logf("%d threads", c.threads())
	stop()
	c.signal(syscall.SIGTERM)
	if got := c.observeEnd(); got != endsWith(0) {
		c.Errorf("at the end it %s, want %s", got, endsWith(0))
	}
	c.checkLog()
}

// askForEverything starts clients that query the control socket and the probes until stop is called.
func (c *cell) askForEverything() (stop func()) {
	const clients = 8
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	keepAsking := func(socket string, paths ...string) {
		client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}}}
		for ctx.Err() == nil {
			for _, path := range paths {
				if response, err := client.Get("http://crank" + path); err == nil {
					response.Body.Close()
					c.answered.Add(1)
				}
			}
		}
	}
	for range clients {
		all.Go(func() { keepAsking(c.gate("http"), "/metrics", "/readyz", "/livez") })
		all.Go(func() { keepAsking(filepath.Join(c.prefix, "app.ctl"), "/v1/ps", "/v1/status", "/v1/info") })
	}
	return func() { cancel(); all.Wait() }
}

// group returns a new cgroup, which is removed when crank has ended.
func (c *cell) group() string {
	c.Helper()
	group, err := os.MkdirTemp(pidsCgroup(), "crank-faults-")
	c.must(err)
	c.Cleanup(func() {
		c.end()
		c.eventually("the cgroup is empty", func() error { return os.Remove(group) })
	})
	return group
}

// inGroup makes crank start in a cgroup.
func (c *cell) inGroup(group string) {
	c.wrap = []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(group, "cgroup.procs")}
}

func (c *cell) write(group, name, value string) {
	c.Helper()
	c.must(os.WriteFile(filepath.Join(group, name), []byte(value), 0o644))
}

func (c *cell) read(group, name string) string {
	c.Helper()
	content, err := os.ReadFile(filepath.Join(group, name))
	c.must(err)
	return strings.TrimSpace(string(content))
}

// threadsOfUser counts the threads that the limit of crank's user applies to.
func (c *cell) threadsOfUser() (count int) {
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, task := range tasks {
		var info syscall.Stat_t
		if syscall.Stat(task, &info) == nil && info.Uid == c.user.Uid {
			count++
		}
	}
	return count
}

// takeAll starts a process that forks in crank's cgroup until no process is left there, and many clients that scrape.
func (c *cell) takeAll() {
	c.Helper()
	cmd := exec.Command("sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(c.cgroup, "cgroup.procs"), "perl", "-e", forker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.must(cmd.Start())
	c.onUndo(func() {
		for syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) == nil { // it may be forking
			cmd.Wait()
		}
	})
	c.eventually("all processes are taken", func() error {
		if now := c.read(c.cgroup, "pids.current"); now != c.read(c.cgroup, "pids.max") {
			return fmt.Errorf("%s so far", now)
		}
		return nil
	})
	c.scrape()
}
