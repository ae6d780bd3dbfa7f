package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/root"
)

// With a write lease (fcntl(2), F_SETLEASE) the owner of a file blocks every exec of it for /proc/sys/fs/lease-break-time: 45 seconds.
// A lease on the program itself is seen in time. With a lease on an interpreter, or on a program that cannot be opened for reading,
// execve hangs, as it does on a file system that does not answer.

// lease is the owner: it takes a write lease on a file, says so, and gives it up at the end of its stdin. It does not notice that
// another process wants the file: Go ignores SIGIO.
func lease(args []string) {
	file, err := os.Open(args[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), syscall.F_SETLEASE, syscall.F_WRLCK); errno != 0 {
		fmt.Println(errno)
		return
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// hold makes another process take a write lease on a file; release ends it.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	cmd := exec.Command(self(t), "helper", "lease", path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = func() {
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout) // Reap takes its status
	}
	t.Cleanup(func() {
		release()
		_ = cmd.Wait() // Reap may have been faster
	})
	if said, _ := bufio.NewReader(stdout).ReadString('\n'); said != "held\n" {
		t.Fatalf("no lease on %s: %s", path, said)
	}
	return release
}

// copied copies a program into a temporary directory of the test.
func copied(t *testing.T, program string, mode os.FileMode) (path string) {
	t.Helper()
	content, err := os.ReadFile(program)
	path = filepath.Join(t.TempDir(), "program")
	if err = errors.Join(err, os.WriteFile(path, content, 0o755), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

// script writes a script for the interpreter.
func script(t *testing.T, interpreter, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!"+interpreter+"\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLeases runs as the current user and, if that is root, as an ordinary user too.
func TestLeases(t *testing.T) {
	t.Run("the program", testLeasedProgram)
	t.Run("the interpreter", testLeasedInterpreter)
	t.Run("the interpreter, given up", testLeaseGivenUp)
	t.Run("a program that cannot be read", testLeasedUnreadable)
	if root.Full() {
		t.Run("as an ordinary user", testLeasesAsUser)
	}
}

func testLeasesAsUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "leases") // not t.TempDir, whose parents are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "test")
	content, err := os.ReadFile(self(t))
	if err = errors.Join(err, os.Chmod(dir, 0o777), os.WriteFile(binary, content, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^TestLeases$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLeases/a_program_that_cannot_be_read") {
		t.Errorf("%v\n%s", err, out)
	}
}

// testLeasedProgram: a leased program cannot be executed, and the error says why; once the lease is gone it can.
func testLeasedProgram(t *testing.T) {
	path := copied(t, "/bin/true", 0o755)
	release := hold(t, path)
	for _, spec := range []Spec{{Path: path}, {Path: "program", Search: "/bin:" + filepath.Dir(path)}} {
		spec.Argv, spec.Files = []string{"x"}, []int{0, 1, 2}
		_, err := execute(spec)
		start, ok := errors.AsType[*StartError](err)
		if !ok || start.Path != path || start.ExitCode() != 126 || !strings.Contains(err.Error(), "another process holds a lease on it") {
			t.Errorf("got %v", err)
		}
	}
	release()
	p, err := execute(Spec{Path: path, Argv: []string{"x"}, Files: []int{0, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := reap(p); e.Code != 0 || err != nil {
		t.Errorf("got %v, %v", e, err)
	}
}

// hanging starts a program whose exec hangs in a kernel function, and checks that nothing else hangs.
func hanging(t *testing.T, spec Spec, in string) *Process {
	t.Helper()
	spec.Argv, spec.Files = []string{"x"}, []int{0, 1, 2}
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(waitChannel(p.PID()), in); time.Sleep(time.Millisecond) {
		if p.Executed() || time.Now().After(deadline) {
			t.Fatalf("it does not hang: executed %v, in %q", p.Executed(), waitChannel(p.PID()))
		}
	}
	runtime.GC() // which stops the world
	if _, err := Reap(func(e Exit) {
		if e.PID == p.PID() {
			t.Errorf("got %+v", e)
		}
	}); err != nil {
		t.Error(err)
	}
	select {
	case <-p.ExecOver():
		t.Error("the exec is over")
	default:
	}
	return p
}

const inLease, inFUSE = "__break_lease", "fuse"

// waitChannel returns the kernel function that a process waits in (proc(5), wchan).
func waitChannel(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return string(name)
}

// testLeasedInterpreter: the child hangs, holds none of the parent's descriptors, and dies of a signal to its group.
func testLeasedInterpreter(t *testing.T) {
	interpreter := copied(t, "/bin/sh", 0o755)
	own, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	hold(t, interpreter)
	p := hanging(t, Spec{Path: script(t, interpreter, "exit 0")}, inLease)
	for fd, file := range descriptors(t, p.PID()) {
		if file == "zero" || strings.HasPrefix(file, "socket:") || file == "anon_inode:[eventpoll]" {
			t.Errorf("the child has the parent's descriptor %s, %s", fd, file)
		}
	}
	if err := p.SignalGroup(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.ExecOver()
	e, err := reap(p)
	if e.Signal != syscall.SIGTERM || e.Failed != nil || err != nil || p.Executed() {
		t.Errorf("got %+v, %v, executed %v", e, err, p.Executed())
	}
}

// testLeaseGivenUp: the exec continues.
func testLeaseGivenUp(t *testing.T) {
	interpreter := copied(t, "/bin/sh", 0o755)
	release := hold(t, interpreter)
	p := hanging(t, Spec{Path: script(t, interpreter, "exit 7")}, inLease)
	release()
	<-p.ExecOver()
	if !p.Executed() {
		t.Error("it was not executed")
	}
	if e, err := reap(p); e.Code != 7 || err != nil {
		t.Errorf("got %+v, %v", e, err)
	}
}

// testLeasedUnreadable: root can read everything, and sees the lease.
func testLeasedUnreadable(t *testing.T) {
	path := copied(t, "/bin/true", 0o755)
	hold(t, path)
	if err := os.Chmod(path, 0o111); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if _, err := execute(Spec{Path: path, Argv: []string{"x"}, Files: []int{0, 1, 2}}); !strings.Contains(fmt.Sprint(err), "holds a lease") {
			t.Errorf("got %v", err)
		}
		return
	}
	p := hanging(t, Spec{Path: path}, inLease)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, err := reap(p); e.Signal != syscall.SIGKILL || err != nil || p.Executed() {
		t.Errorf("got %+v, %v", e, err)
	}
}

// TestFileSystemHangs: a file system that does not answer can be under the working directory, an entry of PATH or the program. Here it is
// FUSE without a server.
func TestFileSystemHangs(t *testing.T) {
	dir := t.TempDir()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		defer server.Close()
		err = syscall.Mount("none", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd()))
	}
	if err != nil {
		t.Skip("NOT TESTED: an exec that hangs on a file system: cannot mount FUSE: ", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	for name, spec := range map[string]Spec{
		"the working directory": {Path: "/bin/true", Dir: dir},
		"an entry of PATH":      {Path: "true", Search: dir + ":/bin"},
		"the program":           {Path: filepath.Join(dir, "true")},
	} {
		t.Run(name, func(t *testing.T) {
			p := hanging(t, spec, inFUSE)
			if err := p.SignalGroup(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if e, err := reap(p); e.Signal != syscall.SIGTERM && e.Signal != syscall.SIGKILL || err != nil || p.Executed() {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
}
