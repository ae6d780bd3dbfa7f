package faults

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

// kernelFaults are what the kernel refuses.
func kernelFaults() []*fault {
	return []*fault{
		{
			name:    "fork fails (EAGAIN, ulimit -u)",
			missing: withoutProgram("prlimit"),
			setup:   (*cell).anotherUser,
			inject:  (*cell).limitForks,
			at:      noFork,
		},
		{
			name:    "fork fails (EAGAIN, pids.max)",
			missing: withoutPidsCgroup,
			inject:  (*cell).fillCgroup,
			at:      noFork,
		},
		{
			name: "another process exhausts pids.max (72) while 100 clients scrape",
			missing: func() string {
				if why := withoutPidsCgroup(); why != "" {
					return why
				}
				return withoutProgram("perl")()
			},
			setup: func(c *cell) {
				c.cgroup = c.group()
				c.write(c.cgroup, "pids.max", "72")
				c.inGroup(c.cgroup)
			},
			inject: (*cell).takeAll,
			at:     noFork,
		},
		{
			name: "no descriptor is left (EMFILE)",
			setup: func(c *cell) {
				if c.moment == beforeStart {
					c.wrap = []string{"sh", "-c", `ulimit -n 8 && exec "$@"`, "sh"}
				}
			},
			inject: func(c *cell) {
				if c.moment != beforeStart {
					c.limit(unix.RLIMIT_NOFILE, 1)
				}
			},
			unreachable: true,
			brief:       true,
			at: [moments]expectation{
				beforeStart: often(endsWith(125), "crank says what it could not open"),
				starting:    rare(swaps, "the candidate has its descriptors already"),
				settling:    rare(swaps, "the candidate has its descriptors already"),
				ready:       often(servesOn, "the candidate gets no sockets and is not started; crankctl is answered once there are descriptors again"),
				draining:    rare(servesOn, "the leaving one drains; that nothing is left of it is seen once there are descriptors again"),
				stopping:    often(endsWith(0), "the app drains as ever"),
			},
		},
		{
			name: "crank is stopped for longer than every deadline (SIGSTOP, SIGCONT)",
			setup: func(c *cell) {
				c.flags = append(c.flags, "-start", "6s", "-stop", "6s")
			},
			inject: func(c *cell) {
				c.signal(syscall.SIGSTOP)
				c.onUndo(func() { c.signal(syscall.SIGCONT) })
				c.eventually("crank is stopped", func() error { return inState(c.pid(), "T") })
				time.Sleep(7 * time.Second) // the fault is that this much time passes
				c.signal(syscall.SIGCONT)
			},
			at: [moments]expectation{
				beforeStart: none("nothing runs yet"),
				starting:    often(swaps, "the time is not charged: the candidate has its -start from then on"),
				settling:    rare(swaps, "the time is not charged"),
				ready:       rare(swaps, "nothing has happened"),
				draining:    rare(servesOn, "the time is not charged: the leaving one is not killed"),
				stopping:    rare(endsWith(0), "the time is not charged: the app is not killed"),
			},
		},
		{
			name: "crank has 5 % of a CPU",
			inject: func(c *cell) {
				done := make(chan struct{})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					for {
						c.process.Process.Signal(syscall.SIGSTOP)
						time.Sleep(95 * time.Millisecond)
						c.process.Process.Signal(syscall.SIGCONT)
						select {
						case <-done:
							return
						case <-time.After(5 * time.Millisecond):
						}
					}
				}()
				c.onUndo(func() { close(done); <-ended })
			},
			late: true,
			at: [moments]expectation{
				beforeStart: rare(starts, "slower, and no more than that"),
				starting:    rare(swaps, "slower, and no more than that"),
				settling:    rare(swaps, "slower, and no more than that"),
				ready:       often(swaps, "slower, and no more than that"),
				draining:    rare(servesOn, "slower, and no more than that"),
				stopping:    rare(endsWith(0), "slower, and no more than that"),
			},
		},
	}
}

// noFork is what follows where no process and no thread can be made.
var noFork = [moments]expectation{
	beforeStart: none("a Go program that cannot make a thread does not run"),
	starting:    rare(swaps, "the candidate runs already, and needs no fork to become current"),
	settling:    rare(swaps, "the candidate runs already, and needs no fork to become current"),
	ready:       often(servesOn, "the candidate cannot be forked; the answer says so"),
	draining:    rare(servesOn, "nobody is forked"),
	stopping:    often(endsWith(0), "the app drains as ever"),
}

// pidsCgroup is where groups with a limit of processes can be made: the controller's own hierarchy (cgroup v1), or the one of all.
func pidsCgroup() string {
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		group, err := os.MkdirTemp(dir, "crank-faults-")
		if err != nil {
			continue
		}
		_, err = os.Stat(filepath.Join(group, "pids.max"))
		os.Remove(group)
		if err == nil {
			return dir
		}
	}
	return ""
}

func withoutPidsCgroup() string {
	if pidsCgroup() == "" {
		return "no cgroup with pids.max can be made"
	}
	return ""
}

// fillCgroup puts crank into a cgroup that is full with it, until undo.
func (c *cell) fillCgroup() {
	c.Helper()
	group := c.group()
	c.write(group, "cgroup.procs", fmt.Sprint(c.pid()))
	c.write(group, "pids.max", "1") // it has more threads than that: none can be added
	c.onUndo(func() { c.write(group, "pids.max", "max") })
}

// nextUser is a user id that no other cell has.
var nextUser atomic.Uint32

// anotherUser has crank run as a user of its own, whose limits are its own and whom permissions bind. Where the test is
// not root it is the test's own user, whom they bind as well.
func (c *cell) anotherUser() {
	c.Helper()
	if !root.Full() {
		return
	}
	id := 47000 + nextUser.Add(1)
	c.user = &syscall.Credential{Uid: id, Gid: id}
	c.must(os.Mkdir(c.prefix, 0o711))
	c.must(os.Chown(c.prefix, int(id), int(id)))
}

// limit lowers a limit of crank, which runs, until undo.
func (c *cell) limit(resource int, to uint64) {
	c.Helper()
	var old unix.Rlimit
	c.must(unix.Prlimit(c.pid(), resource, nil, &old))
	c.must(unix.Prlimit(c.pid(), resource, &unix.Rlimit{Cur: to, Max: old.Max}, nil))
	c.onUndo(func() {
		if err := unix.Prlimit(c.pid(), resource, &old, nil); err != nil && !c.over() {
			c.Errorf("the limit cannot be given back: %v", err)
		}
	})
}

// limitForks keeps crank from making processes and threads, until undo. The user does it that crank runs as: root may
// not everywhere.
func (c *cell) limitForks() {
	c.Helper()
	var old unix.Rlimit
	c.must(unix.Getrlimit(unix.RLIMIT_NPROC, &old)) // which crank has inherited
	c.must(c.setForks(1))                           // its user has more threads than that: none can be added
	c.onUndo(func() {
		if err := c.setForks(old.Cur); err != nil && !c.over() {
			c.Error(err)
		}
	})
}

// setForks sets crank's soft process limit, at most to the hard one.
func (c *cell) setForks(to uint64) error {
	soft := "unlimited"
	if to != unix.RLIM_INFINITY {
		soft = fmt.Sprint(to)
	}
	cmd := exec.Command("prlimit", fmt.Sprintf("--pid=%d", c.pid()), "--nproc="+soft+":")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return nil
}

// TestThreadsBeforeAnswers: who gets an answer from crank knows that it has the threads without which it would end where no more
// can be made.
func TestThreadsBeforeAnswers(t *testing.T) {
	const fewest = 10 // 6 to 8 when they are not there yet
	for range 10 {
		t.Run("start", func(t *testing.T) {
			c := newCell(t, &fault{}, ready)
			c.start()
			c.info()
			if n := c.threads(); n < fewest {
				c.Errorf("it answers with %d threads, want at least %d", n, fewest)
			}
		})
	}
}

// TestThreadsSuffice: the fewest threads that crank creates at startup, those with 20 processes allowed, suffice for many clients, with
// each system call taking a millisecond. If crank needed one more and could not create it, it would exit.
func TestThreadsSuffice(t *testing.T) {
	for _, program := range []string{"strace", "prlimit"} {
		if why := withoutProgram(program)(); why != "" {
			t.Skip("NOT TESTED: " + why)
		}
	}
	if !root.Full() {
		t.Skip("NOT TESTED: threads with slow system calls: only root may trace every process")
	}
	start := func(limit int) *cell {
		c := newCell(t, &fault{}, ready)
		c.anotherUser()
		c.app = []string{"sleep", "1000"}
		c.flags = append(c.flags, "-ready", "none", "-output", "tag", "-http", "unix://"+c.gate("http"))
		c.wrap = []string{"prlimit", fmt.Sprintf("--nproc=%d:", limit)}
		c.start()
		c.info()
		return c
	}
	made := start(20).threads()

	c := start(12) // too few for it to create the threads it needs
	var hard unix.Rlimit
	c.must(unix.Getrlimit(unix.RLIMIT_NPROC, &hard))
	c.must(c.setForks(hard.Max))
	c.slowKernel()
	stop := c.askForEverything()
	defer stop()
	c.eventually("requests are answered", func() error {
		if n := c.answered.Load(); n < 1000 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	taken := c.threads() // the Go runtime ends none
	c.Logf("%d threads created, %d used", made, taken)
	if taken >= made {
		c.Errorf("crank creates %d threads at startup, and many clients use %d: want one to spare", made, taken)
	}
}

// slowKernel has each system call of crank for files and connections take a millisecond, as on a machine where a thread may lose
// the processor in the middle of each: the Go runtime waits for 20 microseconds before another thread goes on.
func (c *cell) slowKernel() {
	c.Helper()
	const calls = "read,write,openat,close,accept4,setsockopt,getsockopt,getsockname,fcntl,?fstat,?newfstatat,getdents64"
	tracer := exec.Command("strace", "-f", "-o", "/dev/null", "-e", "trace="+calls, "-e", "inject="+calls+":delay_enter=1000", "-p", fmt.Sprint(c.pid()))
	messages, err := tracer.StderrPipe()
	c.must(err)
	c.must(tracer.Start())
	c.Cleanup(func() { tracer.Process.Kill(); tracer.Wait() })
	first, err := bufio.NewReader(messages).ReadString('\n')
	if err != nil || !strings.Contains(first, "attached") {
		c.Fatalf("strace says %q (%v)", first, err)
	}
	go io.Copy(io.Discard, messages)
}

// threads returns how many crank has.
func (c *cell) threads() int {
	c.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.pid()))
	c.must(err)
	return len(threads)
}

// withoutProgram says why a program cannot be used: it is missing or does not work.
func withoutProgram(name string) func() string {
	return func() string {
		if err := programs.Works(name); err != nil {
			return err.Error()
		}
		return ""
	}
}

// inState reports whether a process is in a state of /proc/PID/stat.
func inState(pid int, want string) error {
	if got, _ := processes.Stat(pid); got != want {
		return stateError(got)
	}
	return nil
}

type stateError string

func (e stateError) Error() string { return "it is in state " + string(e) }
