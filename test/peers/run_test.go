package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/pid1/spec"
	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/terminal"
)

// patience is the timeout for something that happens immediately, except on a busy machine.
const patience = 30 * time.Second

// run is a story with one program, in one mode.
type run struct {
	who    who
	path   string
	flags  []string
	child  bool   // the program is not PID 1 of its namespace, but the child of that one
	want   string // the outcome listed in the story
	bare   bool   // no socket, where there would be one
	dir    string // for files, removed afterwards
	spec   spec.Spec
	stdin  *os.File
	tty    *terminal.Terminal
	ending []func()
}

// process is a program with its app, in a pid namespace of its own. The test is outside: it sees the processes under other pids.
type process struct {
	argv     []string
	cmd      *exec.Cmd
	pid      int // of the program
	lines    chan string
	stderr   lockedBuffer
	report   *os.File // how the program ended, where it is not PID 1
	executed *os.File // end of file: the program was executed
	copied   sync.WaitGroup
	once     sync.Once
}

// lockedBuffer keeps what is written to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// command returns the whole command line. tini has to be told to be a subreaper.
func (r *run) command(app ...string) []string {
	argv := []string{r.path}
	if r.who == tini && r.child {
		argv = append(argv, "-s")
	}
	argv = append(argv, r.flags...)
	if len(app) > 0 {
		argv = append(argv, "--")
	}
	return append(argv, app...)
}

// start starts the program with an app. It is killed at the end of the run, and everything in its namespace with it.
func (r *run) start(app ...string) (*process, error) { return r.execute(r.command(app...)) }

// execute starts a command line in a namespace.
func (r *run) execute(argv []string) (*process, error) {
	s := r.spec
	s.Argv = argv
	if s.Env == nil {
		s.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	s.CloseOnExec = append(s.CloseOnExec, 3, 4)
	s.Terminal = r.tty != nil
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	role := "setup"
	if r.child {
		role = "outer"
	}
	p := &process{argv: argv, cmd: exec.Command(inside, role, string(text)), lines: make(chan string, 100_000)}
	p.cmd.Dir, p.cmd.Env, p.cmd.SysProcAttr = r.dir, []string{}, namespaces()
	p.cmd.Stdin = r.stdin
	if err := p.launch(r.tty); err != nil {
		return nil, err
	}
	r.ending = append(r.ending, p.close)
	return p, p.await(r.child)
}

// launch starts the process with its pipes, or on a terminal.
func (p *process) launch(tty *terminal.Terminal) error {
	report, reportW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reportW.Close()
	executed, executedW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer executedW.Close()
	out, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer outW.Close()
	errs, errsW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer errsW.Close()
	p.report, p.executed = report, executed
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = outW, errsW, []*os.File{reportW, executedW}
	if tty != nil {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty.Slave, tty.Slave, tty.Slave
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("cannot create a namespace: %w", err)
	}
	p.copied.Go(func() {
		defer close(p.lines)
		defer out.Close()
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	})
	p.copied.Go(func() {
		_, _ = io.Copy(&p.stderr, errs)
		errs.Close()
	})
	return nil
}

// await waits until the program was executed, and finds its pid.
func (p *process) await(child bool) error {
	p.executed.SetReadDeadline(time.Now().Add(patience))
	if _, err := p.executed.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("the program was not executed: %w\n%s", err, &p.stderr)
	}
	p.pid = p.cmd.Process.Pid
	if children := children(p.pid); child && len(children) > 0 {
		p.pid = children[0] // otherwise it has ended already
	}
	return nil
}

// namespaces are a new pid, mount and user namespace, where this user is root; without user namespaces the test has to be root.
func namespaces() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN}}
	if userNamespaces() {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return a
}

// userNamespaces reports whether this process may create them.
var userNamespaces = sync.OnceValue(func() bool {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return cmd.Run() == nil
})

// close ends whatever is left: the kernel kills a namespace with its PID 1.
func (p *process) close() {
	_ = p.cmd.Process.Kill()
	p.reap()
	p.report.Close()
	p.executed.Close()
}

func (p *process) reap() {
	p.once.Do(func() {
		_ = p.cmd.Wait()
		p.copied.Wait()
	})
}

// end waits for the end of the program and returns its exit code as text, or the signal that killed it.
func (p *process) end() (string, error) {
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	p.reap()
	if !timer.Stop() {
		return "", fmt.Errorf("it did not end\n%s", &p.stderr)
	}
	if line, _ := bufio.NewReader(p.report).ReadString('\n'); line != "" {
		how, n, _ := strings.Cut(strings.TrimSpace(line), " ")
		if how == "killed" {
			return "killed by " + n, nil
		}
		return n, nil
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return fmt.Sprintf("killed by %d", status.Signal()), nil
	}
	return strconv.Itoa(status.ExitStatus()), nil
}

// rest waits for the end of the program and returns what else was written to stdout.
func (p *process) rest() (lines []string) {
	p.reap()
	for line := range p.lines {
		lines = append(lines, line)
	}
	return lines
}

// line reads lines until one starts with prefix, and returns the rest of that.
func (p *process) line(prefix string) (string, error) {
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				code, err := p.end()
				return "", errors.Join(err, fmt.Errorf("it ended (%s) without a line %q; there were %q\n%s", code, prefix, seen, &p.stderr))
			}
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest), nil
			}
			seen = append(seen, line)
		case <-timeout:
			return "", fmt.Errorf("no line %q; there were %q\n%s", prefix, seen, &p.stderr)
		}
	}
}

// ready waits until the app is ready, and crank catches all signals: it enables those that nobody sends in the first milliseconds only
// once the app has been started (docs/pid1.md, "The first moments").
func (r *run) ready(p *process) error {
	if _, err := p.line("ready"); err != nil {
		return err
	}
	return r.catches(p)
}

func (r *run) catches(p *process) error {
	if r.who != crank {
		return nil
	}
	return eventually(func() error {
		if set(p.pid, "SigCgt")&bit(64) == 0 {
			return fmt.Errorf("crank catches %x", set(p.pid, "SigCgt"))
		}
		return nil
	})
}

// send signals the program.
func (p *process) send(signals ...syscall.Signal) error {
	for _, sig := range signals {
		if err := syscall.Kill(p.pid, sig); err != nil {
			return fmt.Errorf("cannot send signal %d: %w", sig, err)
		}
	}
	return nil
}

// app waits until the program's only child runs comm, and returns its pid.
func (p *process) app(comm string) (pid int, err error) { return onlyChild(p.pid, comm) }

func onlyChild(parent int, comm string) (pid int, err error) {
	err = eventually(func() error {
		children := children(parent)
		if len(children) != 1 || processes.Name(children[0]) != comm {
			return fmt.Errorf("process %d has the children %v, want one that runs %s", parent, children, comm)
		}
		pid = children[0]
		return nil
	})
	return pid, err
}

// children returns the children of all threads of a process, zombies included (proc_tid_children(5)).
func children(parent int) (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// settle returns what look returns as soon as it is the listed outcome, or at the deadline.
func (r *run) settle(look func() string) string {
	var seen string
	_ = eventually(func() error {
		if seen = look(); seen != r.want {
			return fmt.Errorf("%q", seen)
		}
		return nil
	})
	return seen
}

// eventually waits until check returns no error.
func eventually(check func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if err := check(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// set reads a set of signals from /proc/PID/status.
func set(pid int, field string) uint64 {
	n, _ := strconv.ParseUint(status(pid, field), 16, 64)
	return n
}

func status(pid int, field string) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	_, rest, _ := strings.Cut(string(text), "\n"+field+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// pending returns the signals that a process blocks and that are pending for it.
func pending(pid int) uint64 { return set(pid, "SigPnd") | set(pid, "ShdPnd") }

func bit(sig syscall.Signal) uint64 { return 1 << (sig - 1) }

// list shows a set as numbers: "1 to 3 9".
func list(set uint64) string {
	var all []string
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		first := sig
		for set&bit(sig) != 0 && sig < 64 && set&bit(sig+1) != 0 {
			sig++
		}
		switch {
		case set&bit(sig) == 0:
		case sig-first < 2:
			for ; first <= sig; first++ {
				all = append(all, strconv.Itoa(int(first)))
			}
		default:
			all = append(all, fmt.Sprintf("%d to %d", first, sig))
		}
	}
	if all == nil {
		return "none"
	}
	return strings.Join(all, " ")
}
