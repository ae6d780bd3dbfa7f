package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long something may take that should happen at once, on a busy machine.
const patience = 30 * time.Second

// environment is what every program is started with: nothing that would set crank, or the Go runtime, otherwise.
func environment(more ...string) []string {
	return append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}, more...)
}

// now is CLOCK_MONOTONIC in nanoseconds, the same in every process.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}

// whole is how long a program ran, and its CPU time and that of its own children.
type whole struct{ took, cpu time.Duration }

// runWhole runs a program from its start until it was waited for. Go starts it as posix_spawn does (CLONE_VFORK
// and CLONE_VM), so that the size of this process does not matter. Any exit code but 0 is an error.
func runWhole(null *os.File, env []string, argv ...string) (whole, error) {
	fd := null.Fd()
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{fd, fd, fd}}
	began := time.Now()
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return whole{}, fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	for {
		if _, err = syscall.Wait4(pid, &status, 0, &usage); err != syscall.EINTR {
			break
		}
	}
	took := time.Since(began)
	if err == nil && status != 0 {
		err = fmt.Errorf("wait status %#x", status)
	}
	if err != nil {
		return whole{}, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return whole{took, cpuTime(&usage)}, nil
}

// process is a program that runs for a while. What it writes to stderr is in a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	end  sync.Once
	err  error
	done chan struct{} // closed when it was waited for
}

// options are what start takes besides the command.
type options struct {
	env           []string // on top of environment
	dir           string
	stdin, stdout *os.File // nil: /dev/null
	attr          *syscall.SysProcAttr
}

// start starts a program; the caller stops it.
func (b *bench) start(o options, argv ...string) (*process, error) {
	log, err := os.CreateTemp(b.dir, filepath.Base(argv[0])+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr, cmd.Stderr = environment(o.env...), o.dir, o.attr, log
	if o.stdin != nil {
		cmd.Stdin = o.stdin
	}
	if o.stdout != nil {
		cmd.Stdout = o.stdout
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// wait waits for its end, and kills it if that takes too long.
func (p *process) wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return p.fail(errors.New("it did not end in time"))
}

// stop asks it to end with sig, and waits. How it ends is not looked at.
func (p *process) stop(sig syscall.Signal) {
	p.end.Do(func() {
		_ = p.cmd.Process.Signal(sig)
		_ = p.wait(patience)
	})
}

// fail adds what the process has written.
func (p *process) fail(err error) error {
	text, _ := os.ReadFile(p.log)
	const most = 2000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return fmt.Errorf("%s: %w\n%s", filepath.Base(p.cmd.Path), err, text)
}

// eventually waits until check finds nothing wrong.
func eventually(check func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// serves waits until somebody accepts connections at an address, as long as p runs.
func (p *process) serves(ctx context.Context, address string) error {
	return eventually(func() error {
		select {
		case <-p.done:
			return p.fail(errors.New("it has ended"))
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return p.fail(err)
		}
		return conn.Close()
	})
}

// freeAddress returns an address of loopback at which nobody listens.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// descendants returns a process and all that come of it, by the parents in /proc.
func descendants(root int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// comm is the name of a process.
func comm(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(text))
}
