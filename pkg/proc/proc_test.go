package proc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/leak"
)

// The test binary plays the children.
var helpers = map[string]func(args []string){
	"exit": func(args []string) { n, _ := strconv.Atoi(args[0]); os.Exit(n) },
	"env":  func([]string) { fmt.Println(strings.Join(os.Environ(), "\n")) },
	"where": func([]string) {
		wd, _ := os.Getwd()
		fmt.Println(wd, syscall.Getpgrp() == os.Getpid(), os.Getppid())
	},
	"oom":   func([]string) { printFile("/proc/self/oom_score_adj") },
	"sleep": func([]string) { fmt.Println("up"); select {} },
	"spawn": spawn,
	"lease": lease,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		helpers[os.Args[2]](os.Args[3:])
		os.Exit(0)
	}
	// What this process was started with is not what is tested.
	if err := linux.CloseOnExecFrom(3); err != nil {
		panic(err)
	}
	os.Exit(leak.Main(m))
}

func printFile(name string) {
	b, err := os.ReadFile(name)
	if err != nil {
		fmt.Println(err)
	}
	os.Stdout.Write(b)
}

// spawn starts a grandchild that outlives this process, in a session of its own, and prints its pid.
func spawn([]string) {
	p, err := os.StartProcess("/proc/self/exe", []string{"x", "helper", "sleep"}, &os.ProcAttr{
		Files: []*os.File{nil, nil, nil}, Sys: &syscall.SysProcAttr{Setsid: true}, Env: os.Environ(),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(p.Pid)
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// started is a child under test, with its output.
type started struct {
	*Process
	out *os.File
}

func start(t *testing.T, change func(*Spec), helper ...string) *started {
	t.Helper()
	spec, out := spec(t, change, helper...)
	p, err := execute(spec)
	if err != nil {
		t.Fatal(err)
	}
	linux.Close(spec.Files[1])
	return &started{p, out}
}

// execute starts a process and waits until its exec has succeeded or failed.
func execute(spec Spec) (*Process, error) {
	p, err := Start(spec)
	if err != nil {
		return nil, err
	}
	<-p.ExecOver()
	if p.Executed() {
		return p, nil
	}
	e, err := reap(p)
	return nil, cmp.Or(err, e.Failed, fmt.Errorf("ended before its exec: %v", e))
}

// reap waits until p is among the processes that have ended.
func reap(p *Process) (end Exit, err error) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := Reap(func(e Exit) {
			if e.PID == p.PID() {
				end = e
			}
		}); err != nil {
			return Exit{}, err
		}
		if end.PID != 0 {
			p.Gone()
			return end, nil
		}
	}
	return Exit{}, errors.New("the child does not end")
}

func spec(t *testing.T, change func(*Spec), helper ...string) (Spec, *os.File) {
	t.Helper()
	r, w, err := linux.Pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	out := os.NewFile(uintptr(r), "output")
	t.Cleanup(func() { out.Close() })
	s := Spec{Path: self(t), Argv: append([]string{"x", "helper"}, helper...), Env: os.Environ(), Files: []int{0, w, 2}}
	if change != nil {
		change(&s)
	}
	return s, out
}

// output reads to the end and waits for the exit.
func (s *started) output(t *testing.T) string {
	t.Helper()
	b, err := io.ReadAll(s.out)
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	return string(b)
}

// wait reaps until this process is among those that ended.
func (s *started) wait(t *testing.T) Exit {
	t.Helper()
	e, err := reap(s.Process)
	if err != nil {
		_ = linux.Kill(s.PID(), syscall.SIGKILL)
		t.Fatal(err)
	}
	return e
}

func TestAllExitCodes(t *testing.T) {
	for code := range 256 {
		e := start(t, nil, "exit", strconv.Itoa(code)).wait(t)
		if e.Code != code || e.Signal != 0 || e.Status() != code || e.String() != fmt.Sprintf("exited %d", code) {
			t.Fatalf("exit(%d): %+v", code, e)
		}
	}
}

// TestAllSignals ends a child by each signal whose default action is to end it.
func TestAllSignals(t *testing.T) {
	harmless := []syscall.Signal{syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG, syscall.SIGWINCH}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if slices.Contains(harmless, sig) || sig == 32 || sig == 33 {
			continue
		}
		p := startShell(t, "kill -"+strconv.Itoa(int(sig))+" $$; exec sleep 60")
		e := p.wait(t)
		if e.Signal != sig || e.Code != -1 || e.Status() != 128+int(sig) {
			t.Errorf("signal %d: %+v", sig, e)
		}
	}
}

// startShell runs /bin/sh, which has no handlers of its own.
func startShell(t *testing.T, script string) *started {
	t.Helper()
	return start(t, func(s *Spec) {
		s.Path, s.Argv = "/bin/sh", []string{"sh", "-c", script}
	})
}

func TestOwnPID(t *testing.T) {
	for _, c := range []struct{ listen, watchdog bool }{{}, {true, false}, {false, true}, {true, true}} {
		p := start(t, func(s *Spec) { s.ListenPID, s.WatchdogPID = c.listen, c.watchdog }, "env")
		pid := p.PID()
		out := p.output(t)
		for prefix, want := range map[string]bool{"LISTEN_PID=": c.listen, "WATCHDOG_PID=": c.watchdog} {
			if got := strings.Contains(out, fmt.Sprintf("%s%d\n", prefix, pid)); got != want || strings.Contains(out, prefix) != want {
				t.Errorf("%+v: %s%d is there: %v\n%s", c, prefix, pid, got, out)
			}
		}
	}
}

// TestDescriptors passes descriptors in an order in which each would overwrite another.
func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	var files []*os.File
	for i := range 4 {
		f, err := os.Create(filepath.Join(dir, "file"+strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	// Whatever their numbers: 3 to 6 in the child are file3, file0, nothing, file2.
	r, w, err := linux.Pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	// A shell, since a Go program opens descriptors of its own. It waits until they were looked at.
	p := startShellWith(t, "echo up; read x", func(s *Spec) {
		s.Files[0] = r
		s.Files = append(s.Files, int(files[3].Fd()), int(files[0].Fd()), -1, int(files[2].Fd()))
	})
	if _, err := io.ReadFull(p.out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	got := descriptors(t, p.PID())
	linux.Close(r, w)
	p.wait(t)
	want := map[string]string{"3": "file3", "4": "file0", "6": "file2"}
	for fd, name := range want {
		if got[fd] != name {
			t.Errorf("descriptor %s is %s, want %s", fd, got[fd], name)
		}
	}
	for fd, name := range got {
		if n, _ := strconv.Atoi(fd); n > 2 && want[fd] != name {
			t.Errorf("descriptor %s is open in the child: %s", fd, name)
		}
	}
}

// descriptors returns what each descriptor of a process is.
func descriptors(t *testing.T, pid int) map[string]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		all[e.Name()] = filepath.Base(target)
	}
	return all
}

// TestSwappedDescriptors pins that 3 and 4 can change places.
func TestSwappedDescriptors(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 { // until descriptors 3 and 4 of the child are among ours
		f, err := os.Create(filepath.Join(dir, "n"+strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	target := func(fd int) string { s, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); return s }
	three, four := target(3), target(4)
	out := startShellWith(t, "readlink /proc/$$/fd/3; readlink /proc/$$/fd/4", func(s *Spec) { s.Files = append(s.Files, 4, 3) }).output(t)
	if want := four + "\n" + three + "\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func startShellWith(t *testing.T, script string, change func(*Spec)) *started {
	t.Helper()
	return start(t, func(s *Spec) {
		s.Path, s.Argv = "/bin/sh", []string{"sh", "-c", script}
		change(s)
	})
}

// TestSharedSocketFlags pins why os.StartProcess is not used: O_NONBLOCK of a listener that is
// passed on stays as it is, both ways (https://go.dev/issue/29277).
func TestSharedSocketFlags(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	flags := func() (flags int) {
		raw.Control(func(fd uintptr) { flags, _ = linux.StatusFlags(int(fd)) })
		return flags
	}
	if flags()&syscall.O_NONBLOCK == 0 {
		t.Fatal("a listener of net is not non-blocking: this test tests nothing")
	}
	raw.Control(func(fd uintptr) {
		start(t, func(s *Spec) { s.Files = append(s.Files, int(fd)) }, "exit", "0").wait(t)
	})
	if flags()&syscall.O_NONBLOCK == 0 {
		t.Error("starting a child has cleared O_NONBLOCK on the shared socket")
	}
}

func TestGroupAndDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := start(t, func(s *Spec) { s.Dir = dir }, "where").output(t)
	if want := fmt.Sprintln(dir, true, os.Getpid()); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// TestSignalState pins what the child's handlers and mask are, although this process catches and
// the runtime blocks signals around the fork.
func TestSignalState(t *testing.T) {
	// Not a Go program: its runtime would install handlers.
	own := startShell(t, "cat /proc/self/status").output(t)
	for _, field := range []string{"SigBlk", "SigIgn"} {
		if v := signalSet(t, own, field); v != 0 {
			t.Errorf("%s of the child: %x", field, v)
		}
	}
}

// signalSet returns a set of signals without 32 and 33: with the race detector this process has a C
// library, which ignores them at times for its own purposes.
func signalSet(t *testing.T, status, field string) uint64 {
	t.Helper()
	set, err := strconv.ParseUint(statusField(status, field), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set &^ (1<<31 | 1<<32)
}

func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if k, v, _ := strings.Cut(line, ":"); k == name {
			return strings.TrimSpace(v)
		}
	}
	return "missing"
}

// TestNofile pins that the child gets the limit that this process was started with, not the one
// that Go has raised it to.
func TestNofile(t *testing.T) {
	// A child with a soft limit of 777 runs this test binary, which starts a shell.
	if os.Getenv("CRANK_TEST_NOFILE") != "" {
		fmt.Print("limit ", startShell(t, "ulimit -Sn").output(t))
		return
	}
	out := startShellWith(t, "ulimit -Sn 777; exec "+self(t)+" -test.run=^TestNofile$", func(s *Spec) {
		s.Env = append(s.Env, "CRANK_TEST_NOFILE=1")
	}).output(t)
	if !strings.Contains(out, "limit 777\n") {
		t.Errorf("got %q", out)
	}
}

func TestOOMScore(t *testing.T) {
	if got := strings.TrimSpace(start(t, func(s *Spec) { s.OOMScoreAdj = "1000" }, "oom").output(t)); got != "1000" {
		t.Errorf("got %s", got)
	}
	p := start(t, func(s *Spec) { s.OOMScoreAdj = "1000" }, "sleep")
	own, err := OOMScoreAdj()
	if err != nil {
		t.Fatal(err)
	}
	if err := SetOOMScoreAdj(p.PID(), own); err != nil {
		t.Errorf("cannot give the old score back: %v", err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.wait(t)
}

func TestNoNewPrivs(t *testing.T) {
	out := startShellWith(t, "cat /proc/self/status", func(s *Spec) { s.NoNewPrivs = true }).output(t)
	if got := statusField(out, "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs is %s", got)
	}
}

// TestExecErrors pins that what execve says comes back as an errno, at once, and leaves no zombie.
func TestExecErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	busy := file("busy", "\x7fELF", 0o755)
	writer, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, c := range []struct {
		name, path, dir string
		is              error
		text            string
		code            int
	}{
		{"missing", filepath.Join(dir, "missing"), "", fs.ErrNotExist, "no such file", 127},
		{"not executable", file("plain", "x", 0o644), "", fs.ErrPermission, "permission denied", 126},
		{"a directory", dir, "", fs.ErrPermission, "permission denied", 126},
		{"no format", file("data", "hello\x00", 0o755), "", syscall.ENOEXEC, "neither a program for this machine", 126},
		{"half a program", file("half", "\x7fELF", 0o755), "", syscall.ENOEXEC, "neither a program for this machine", 126},
		{"UTF-16", file("utf16", "e\x00c\x00h\x00o\x00", 0o755), "", syscall.ENOEXEC, "neither a program for this machine", 126},
		{"a NUL at the end of the head", file("late", strings.Repeat("#", 255)+"\x00", 0o755), "", syscall.ENOEXEC, "neither", 126},
		{"no interpreter", file("script", "#!/no/such/interpreter\n", 0o755), "", nil, "its interpreter does not exist: \"/no/such/interpreter\" in its #! line", 126},
		{"CRLF", file("crlf", "#! /bin/sh\r\necho\r\n", 0o755), "", nil, `its interpreter does not exist: "/bin/sh\r": save the script with LF line endings`, 126},
		{"no dynamic loader", file("loader", loaderless(t), 0o755), "", nil, "its interpreter does not exist: the dynamic loader", 126},
		{"an interpreter that is a directory", file("dirscript", "#!/tmp\n", 0o755), "", fs.ErrPermission, "permission denied", 126},
		{"text that is not executable", file("notes", "echo\n", 0o644), "", fs.ErrPermission, "permission denied", 126},
		{"wrong architecture", file("elf", wrongArchitecture, 0o755), "", syscall.ENOEXEC, "neither a program for this machine", 126},
		{"being written", busy, "", syscall.ETXTBSY, "rename", 126},
		{"no directory", "/bin/sh", filepath.Join(dir, "nowhere"), fs.ErrNotExist, "cannot enter " + dir + "/nowhere: no such file or directory", 126},
		{"a directory that is a file", "/bin/sh", file("file", "", 0o755), syscall.ENOTDIR, "cannot enter " + dir + "/file: not a directory", 126},
		{"NUL", "/bin/s\x00h", "", syscall.EINVAL, "invalid argument", 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := execute(Spec{Path: c.path, Argv: []string{"x"}, Dir: c.dir, Files: []int{0, 1, 2}})
			var start *StartError
			if !errors.As(err, &start) {
				t.Fatalf("got %v", err)
			}
			if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || start.ExitCode() != c.code {
				t.Errorf("got %v (exit code %d)", err, start.ExitCode())
			}
		})
	}
	if none, err := Reap(func(e Exit) { t.Errorf("left behind: %+v", e) }); !none || err != nil {
		t.Errorf("children are left: %v %v", none, err)
	}
}

// wrongArchitecture is the head of a program for a machine that nobody has (EM_M32).
const wrongArchitecture = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x00\x01\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00"

func TestManyStartsLeakNothing(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 50 {
		p, err := execute(Spec{Path: self(t), Argv: []string{"x", "helper", "exit", "0"}, Files: []int{0, 1, 2},
			Env: []string{"GORACE=atexit_sleep_ms=0"}})
		if err != nil {
			t.Fatal(err)
		}
		(&started{p, nil}).wait(t)
		if _, err := execute(Spec{Path: "/no/such/file", Argv: []string{"x"}}); err == nil {
			t.Fatal("no error")
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}

func TestSignalAfterGone(t *testing.T) {
	p := start(t, nil, "exit", "0")
	p.wait(t)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestReapStopped(t *testing.T) {
	p := start(t, nil, "sleep")
	if _, err := io.ReadFull(p.out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for !stopped(t, p.PID()) {
		time.Sleep(time.Millisecond)
	}
	if _, err := Reap(func(e Exit) { t.Errorf("a stopped child was reaped: %v", e) }); err != nil {
		t.Error(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := p.wait(t); e.Signal != syscall.SIGKILL {
		t.Errorf("got %v", e)
	}
}

func stopped(t *testing.T, pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(statusField(string(b), "State"), "T")
}

func TestTree(t *testing.T) {
	if err := linux.SetSubreaper(); err != nil {
		t.Fatal(err)
	}
	p := start(t, func(s *Spec) { s.Env = append(s.Env, "MARK=yes") }, "spawn")
	orphan, err := strconv.Atoi(strings.TrimSpace(p.output(t)))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Processes()
	if err != nil {
		t.Fatal(err)
	}
	e := table[orphan]
	if e.Parent != os.Getpid() || e.Session != orphan || e.Zombie || !table.Within(orphan, os.Getpid()) || table.Within(os.Getpid(), orphan) {
		t.Errorf("the orphan is %+v", e)
	}
	if values, err := Environ(orphan, "MARK"); err != nil || values["MARK"] != "yes" {
		t.Errorf("MARK is %q, %v", values, err)
	}
	stale := e
	stale.Start++
	if err := SignalEntry(stale, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, ok := Lookup(orphan); !ok {
		t.Error("a process with another start time was signalled")
	}
	if err := SignalEntry(e, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if got := (&started{&Process{pid: orphan, pidfd: -1}, nil}).wait(t); got.Signal != syscall.SIGKILL {
		t.Errorf("got %v", got)
	}
}

// TestAdopt: a descendant that somebody else may reap is signalled as long as it is the same process.
func TestAdopt(t *testing.T) {
	if err := linux.SetSubreaper(); err != nil {
		t.Fatal(err)
	}
	p := startShell(t, "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
	pid, err := strconv.Atoi(strings.TrimSpace(p.output(t)))
	if err != nil {
		t.Fatal(err)
	}
	for Name(pid) != "sleep" {
		time.Sleep(time.Millisecond)
	}
	e, ok := Lookup(pid)
	if !ok || e.Group != pid {
		t.Fatalf("process %d is %+v", pid, e)
	}
	stale := e
	stale.Start++
	if _, err := Adopt(stale, 0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("another process was adopted: %v", err)
	}
	for _, pidfds := range []bool{true, false} {
		a, err := Adopt(e, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !pidfds {
			linux.Close(a.pidfd)
			a.pidfd = -1
		}
		if now, ok := a.Look(); !ok || now.PID != pid {
			t.Errorf("it is %+v", now)
		}
		if err := a.SignalGroup(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for !stopped(t, pid) {
			time.Sleep(time.Millisecond)
		}
		if err := a.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for stopped(t, pid) {
			time.Sleep(time.Millisecond)
		}
		if !pidfds {
			a.start++ // as if the pid belonged to another one by now
			if err := errors.Join(a.Signal(syscall.SIGKILL), a.SignalGroup(syscall.SIGKILL)); err != nil {
				t.Error(err)
			}
		}
		a.Gone()
		if _, ok := a.Look(); ok {
			t.Error("it is there after Gone")
		}
	}
	orphan := &started{&Process{pid: pid, pidfd: -1}, nil}
	if err := orphan.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := orphan.wait(t); got.Signal != syscall.SIGTERM {
		t.Errorf("got %v, want a SIGTERM: the SIGKILL was for another process", got)
	}
	if _, err := Adopt(e, 0); !errors.Is(err, os.ErrProcessDone) || Name(pid) != "" {
		t.Errorf("it was adopted after its end: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	line := "7 (a) b (c)) S 3 7 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0"
	want := Entry{PID: 7, Parent: 3, Group: 7, Session: 5, Start: 12345}
	if got, ok := parseStat(7, []byte(line)); !ok || got != want {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"", "7", "7 (x) S 1 2"} {
		if _, ok := parseStat(7, []byte(bad)); ok {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestInheritedIgnore pins that a child ignores what crank was started to ignore (nohup), and that a
// signal that is only caught here is not ignored there.
func TestInheritedIgnore(t *testing.T) {
	if os.Getenv("CRANK_TEST_IGNORE") != "" {
		fmt.Printf("child %x\n", signalSet(t, startShell(t, "cat /proc/self/status").output(t), "SigIgn"))
		return
	}
	out := startShellWith(t, "trap '' HUP INT; exec "+self(t)+" -test.run=^TestInheritedIgnore$", func(s *Spec) {
		s.Env = append(s.Env, "CRANK_TEST_IGNORE=1")
	}).output(t)
	if !strings.Contains(out, "child 3\n") {
		t.Errorf("got %q", out)
	}
}
