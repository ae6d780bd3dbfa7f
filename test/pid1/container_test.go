package pid1

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/pid1/spec"
)

// patience is how long something may take that should happen at once, on a busy machine.
const patience = 30 * time.Second

// container is an init under test with its app, in a pid namespace of its own. The test is outside:
// it sees all its processes, under other pids.
type container struct {
	cmd                *exec.Cmd
	pid                int // the init under test, as the test sees it
	lines              chan string
	stderr             lockedBuffer
	report             *os.File // of outer; nil where the init is PID 1
	executed           *os.File // end of file: the init under test was executed
	ended              sync.WaitGroup
	stdout, stderrPipe *os.File
	once               sync.Once
	state              *os.ProcessState
}

// options are what a test wants different.
type options struct {
	spec   spec.Spec
	uid    int      // in the container
	tty    *os.File // becomes stdin and the controlling terminal
	ttyOut bool     // and stdout and stderr
	stdin  *os.File
}

// lockedBuffer keeps the first megabyte of what is written to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() < 1<<20 {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs p with flags and app. The caller closes the container.
func start(p *program, o options, flags []string, app ...string) (*container, error) {
	s := o.spec
	s.Argv = p.command(flags, app...)
	if s.Env == nil {
		s.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	executed, executedW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	report, reportW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reportW.Close()
	s.Terminal = o.tty != nil
	s.CloseOnExec = append(s.CloseOnExec, 3, 4)
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	role := "setup"
	if p.subreaper {
		role = "outer"
	}
	c := &container{cmd: exec.Command(inside, role, string(text)), lines: make(chan string, 100_000), report: report, executed: executed}
	c.cmd.Stdin, c.cmd.ExtraFiles = o.stdin, []*os.File{reportW, executedW}
	c.cmd.Env = []string{}
	c.cmd.SysProcAttr = namespaces(o.uid)
	if o.tty != nil {
		c.cmd.Stdin = o.tty
	}
	if o.ttyOut {
		c.cmd.Stdout, c.cmd.Stderr = o.tty, o.tty
		close(c.lines)
	} else if err := c.copyOutput(); err != nil {
		return nil, err
	}
	err = c.cmd.Start()
	executedW.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot make a container: %w", err)
	}
	for _, f := range []any{c.cmd.Stdout, c.cmd.Stderr} {
		if f, ok := f.(*os.File); ok && f != o.tty {
			f.Close()
		}
	}
	if err := c.await(p); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// copyOutput reads stdout by lines, and stderr.
func (c *container) copyOutput() error {
	out, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errs, errsW, err := os.Pipe()
	if err != nil {
		return err
	}
	c.cmd.Stdout, c.cmd.Stderr = outW, errsW
	c.stdout, c.stderrPipe = out, errs
	c.ended.Go(func() {
		defer close(c.lines)
		defer out.Close()
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	})
	c.ended.Go(func() {
		io.Copy(&c.stderr, errs)
		errs.Close()
	})
	return nil
}

// await waits until the init under test is executed, and finds its pid.
func (c *container) await(p *program) error {
	c.pid = c.cmd.Process.Pid
	if p.subreaper {
		outer := c.pid
		if err := eventually(func() error {
			c.pid = 0
			if children := childrenOf(outer); len(children) > 0 {
				c.pid = children[0].pid
			} else if o, _ := lookup(outer); o.state != "Z" { // else the init's end has come already
				return fmt.Errorf("PID 1 has no child\n%s", &c.stderr)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	c.executed.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.executed.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("%s was not executed: %w\n%s", p.name, err, &c.stderr)
	}
	return nil
}

// userNamespaces is whether containers are made without any privilege.
var userNamespaces = true

// checkNamespaces finds out how containers can be made. Without user namespaces they need root.
func checkNamespaces() error {
	try := func() error {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = namespaces(0)
		return cmd.Run()
	}
	err := try()
	if err == nil {
		return nil
	}
	userNamespaces = false
	if os.Getuid() == 0 && try() == nil {
		return nil
	}
	return fmt.Errorf("cannot make a pid namespace: %w (see /proc/sys/user/max_user_namespaces, and "+
		"/proc/sys/kernel/unprivileged_userns_clone or apparmor_restrict_unprivileged_userns beside it; or be root)", err)
}

// namespaces makes the caller's user the user uid of new namespaces, with the right to mount.
func namespaces(uid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC,
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
	if !userNamespaces {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		return a
	}
	a.Cloneflags |= syscall.CLONE_NEWUSER
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getgid(), Size: 1}}
	return a
}

// signal signals the init under test.
func (c *container) signal(sig syscall.Signal) error {
	if c.pid == 0 {
		return syscall.ESRCH
	}
	return syscall.Kill(c.pid, sig)
}

// expect reads lines until one begins with prefix, and returns the rest of that.
func (c *container) expect(prefix string) (string, error) {
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				return "", fmt.Errorf("it ended without a line %q; there were %q\n%s", prefix, seen, &c.stderr)
			}
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest), nil
			}
			seen = append(seen, line)
		case <-timeout:
			return "", fmt.Errorf("no line %q; there were %q\n%s", prefix, seen, &c.stderr)
		}
	}
}

// expectAll reads lines until each of these, none of which is another's prefix, was among them in any order.
func (c *container) expectAll(prefixes ...string) error {
	for missing := prefixes; len(missing) > 0; {
		line, err := c.expect("")
		if err != nil {
			return fmt.Errorf("%q are missing: %w", missing, err)
		}
		missing = slices.DeleteFunc(missing, func(prefix string) bool { return strings.HasPrefix(line, prefix) })
	}
	return nil
}

// stopReading closes stdout and stderr at the test's end.
func (c *container) stopReading() {
	c.stdout.Close()
	c.stderrPipe.Close()
}

// pipe returns a pipe: in blocks until end is closed.
func pipe() (in, end *os.File, err error) { return os.Pipe() }

func kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// rest returns what else was written on stdout. It waits for the end of the container.
func (c *container) rest() []string {
	var all []string
	for line := range c.lines {
		all = append(all, line)
	}
	return all
}

// end is how the init under test ended.
type end struct {
	code int
	sig  syscall.Signal
}

func (e end) String() string {
	if e.sig != 0 {
		return fmt.Sprintf("killed by %d", e.sig)
	}
	return fmt.Sprintf("exited %d", e.code)
}

// wait waits for the end of the init under test, and then for that of the container.
func (c *container) wait() (end, error) {
	timer := time.AfterFunc(patience, func() { c.cmd.Process.Kill() })
	c.reap()
	if !timer.Stop() {
		return end{}, fmt.Errorf("it did not end\n%s", &c.stderr)
	}
	status := c.state.Sys().(syscall.WaitStatus)
	e := end{code: status.ExitStatus()}
	if status.Signaled() {
		e.sig = status.Signal()
	}
	if line, _ := bufio.NewReader(c.report).ReadString('\n'); line != "" {
		var how string
		var n int
		fmt.Sscan(line, &how, &n)
		e = end{code: n}
		if how == "killed" {
			e = end{code: -1, sig: syscall.Signal(n)}
		}
	}
	return e, nil
}

func (c *container) reap() {
	c.once.Do(func() {
		c.cmd.Wait()
		c.state = c.cmd.ProcessState
		c.ended.Wait() // nobody can write any more
	})
}

// ends checks how the init under test ends.
func (c *container) ends(code int) error {
	e, err := c.wait()
	if err != nil {
		return err
	}
	if want := (end{code: code}); e != want {
		return fmt.Errorf("it %v, want %v\n%s", e, want, &c.stderr)
	}
	return nil
}

// close ends whatever is left: the kernel kills a namespace with its PID 1.
func (c *container) close() {
	c.cmd.Process.Kill()
	c.reap()
	c.report.Close()
	c.executed.Close()
}

// process is one as /proc/PID/stat shows it (proc_pid_stat(5)).
type process struct {
	pid, parent, group, session, foreground int
	state                                   string
	cpu                                     time.Duration
}

// lookup reads a process.
func lookup(pid int) (process, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	num := func(i int) int { n, _ := strconv.Atoi(f[i]); return n }
	return process{pid: pid, state: f[0], parent: num(1), group: num(2), session: num(3), foreground: num(5),
		cpu: time.Duration(num(11)+num(12)) * 10 * time.Millisecond}, true
}

// childrenOf returns the children of all threads of a process, the dead ones included (proc_tid_children(5)).
func childrenOf(parent int) (all []process) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(field)
			if p, ok := lookup(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// statusOf reads a field of /proc/PID/status.
func statusOf(pid int, field string) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
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

// app waits until the init's only child executes comm, and returns its pid.
func (c *container) app(comm string) (pid int, err error) {
	err = eventually(func() error {
		children := childrenOf(c.pid)
		if len(children) != 1 {
			return fmt.Errorf("the init has the children %v, want one\n%s", children, &c.stderr)
		}
		pid = children[0].pid
		if name := statusOf(pid, "Name"); name != comm {
			return fmt.Errorf("its child is %q, want %q\n%s", name, comm, &c.stderr)
		}
		return nil
	})
	return pid, err
}

// pending returns the signals that wait for a process that blocks them all.
func pending(pid int) (set uint64) {
	for _, field := range []string{"SigPnd", "ShdPnd"} {
		n, _ := strconv.ParseUint(statusOf(pid, field), 16, 64)
		set |= n
	}
	return set
}

func bit(sig syscall.Signal) uint64 { return 1 << (sig - 1) }

// names lists the signals of a set.
func names(set uint64) string {
	var all []string
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if set&bit(sig) != 0 {
			all = append(all, strconv.Itoa(int(sig)))
		}
	}
	return strings.Join(all, " ")
}

// must ends the test where there is an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
