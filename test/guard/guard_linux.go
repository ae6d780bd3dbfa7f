package guard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/processes"
)

const guards = true

// grace is how long what passing tests left behind may take to end by itself; a variable only for this package's own test.
var grace = 10 * time.Second

// patience is how long killed processes may take to end on a busy machine.
const patience = 30 * time.Second

// guard starts the guarded run and returns its exit code. If a signal stops it, it does not return: that signal ends this
// process once everything is cleaned up.
func guard() int {
	runtime.LockOSThread() // Pdeathsig is sent when the thread that forked ends (PR_SET_PDEATHSIG(2const))
	dir, err := Adopt()
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	pid, caught, err := start()
	if err != nil {
		return fail(err)
	}
	status, by := watch(pid, caught)
	if by != 0 {
		KillRest(0)
		os.RemoveAll(dir)
		signal.Reset(by)
		_ = syscall.Kill(os.Getpid(), by)
		select {} // the signal may be delivered to another thread
	}
	return verdict(status)
}

// Adopt makes this process the parent of all orphans below it, for KillRest. It creates a directory, sets TMPDIR and XDG_RUNTIME_DIR
// to it, and returns it. The caller removes it.
func Adopt() (dir string, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return "", fmt.Errorf("cannot become a subreaper: %w", err)
	}
	if dir, err = directory(os.TempDir()); err != nil {
		return "", err
	}
	return dir, errors.Join(os.Setenv("TMPDIR", dir), os.Setenv("XDG_RUNTIME_DIR", dir))
}

// directory creates a directory below parent. Its name is short: a socket path has at most 107 bytes (unix(7)).
func directory(parent string) (string, error) {
	for {
		dir := filepath.Join(parent, "t"+strconv.FormatUint(uint64(rand.Uint32N(36*36*36*36)), 36))
		if err := os.Mkdir(dir, 0o755); !os.IsExist(err) {
			if err == nil {
				err = os.Chmod(dir, 0o755) // regardless of the umask: some apps run as another user
			}
			return dir, err
		}
	}
}

// start starts the guarded run in its own process group: a terminal's signals reach only the guard. caught delivers the signals that
// the guard acts on, HUP only if the guard was not started with HUP ignored.
func start() (pid int, caught chan os.Signal, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	if info, err := os.Stat(program); err == nil {
		_ = os.Chmod(program, info.Mode()|0o055) // regardless of the umask: some tests start it as another user
	}
	nohup := signal.Ignored(syscall.SIGHUP) || ignores(os.Getppid(), syscall.SIGHUP)
	caught = make(chan os.Signal, 16)
	signal.Notify(caught) // a signal caught here has its default action in the guarded run
	syscall.Umask(0o022)
	os.Setenv(variable, "1")
	p, err := os.StartProcess(program, os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, nil, err
	}
	signal.Reset()
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	if nohup {
		signal.Ignore(syscall.SIGHUP)
	}
	pid = p.Pid
	return pid, caught, p.Release()
}

// watch reaps until the guarded run has ended, and returns how it ended. A signal kills the run; by is that signal. QUIT is
// forwarded instead: go test sends it for the stacks, and kills later.
func watch(pid int, caught <-chan os.Signal) (status syscall.WaitStatus, by syscall.Signal) {
	ended := make(chan syscall.WaitStatus)
	go func() {
		for {
			var status syscall.WaitStatus
			got, err := syscall.Wait4(-1, &status, 0, nil)
			if err != nil && err != syscall.EINTR {
				fmt.Fprintln(os.Stderr, "cannot wait for the tests:", err)
				got, status = pid, 1<<8 // exit code 1
			}
			if got == pid {
				ended <- status
				return
			}
		}
	}()
	for {
		select {
		case status := <-ended:
			return status, by
		case sig := <-caught:
			switch sig {
			case syscall.SIGQUIT:
				_ = syscall.Kill(pid, syscall.SIGQUIT)
			case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP:
				by = sig.(syscall.Signal)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// verdict returns the exit code once no process is left.
func verdict(status syscall.WaitStatus) int {
	code, wait := status.ExitStatus(), grace
	if status.Signaled() {
		code = 128 + int(status.Signal())
		fmt.Fprintln(os.Stderr, "the tests were killed:", status.Signal())
	}
	if code != 0 {
		wait = 0 // what a failed test leaves is the lesser problem
	}
	left := KillRest(wait)
	if len(left) > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "the tests left processes behind, which were killed: %s\n", strings.Join(left, ", "))
		return 1
	}
	return code
}

// KillRest waits this long for all processes below this one to end, then kills those that are left, and returns what it killed.
func KillRest(wait time.Duration) (killed []string) {
	seen := map[int]bool{} // those that were killed already, and take their time to end
	for began := time.Now(); time.Since(began) < wait+patience; time.Sleep(10 * time.Millisecond) {
		for reaped := 1; reaped != 0; {
			var err error
			if reaped, err = syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err == syscall.ECHILD {
				return killed
			}
		}
		if time.Since(began) < wait {
			continue
		}
		for _, pid := range processes.Children(os.Getpid()) { // their children become this process's
			if state, _ := processes.Stat(pid); state != "Z" && !seen[pid] && syscall.Kill(pid, syscall.SIGKILL) == nil {
				seen[pid] = true
				killed = append(killed, fmt.Sprintf("%d (%s)", pid, processes.Name(pid)))
			}
		}
	}
	return append(killed, "and some that did not end")
}

// ignores reports whether a process ignores a signal, according to /proc/PID/status; false if that cannot be read. For this process it
// would report too little: package origin changes its own signals before any other code can look.
func ignores(pid int, sig syscall.Signal) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "\nSigIgn:\t")
	line, _, _ := strings.Cut(rest, "\n")
	set, _ := strconv.ParseUint(line, 16, 64)
	return set&(1<<(sig-1)) != 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "cannot guard the tests:", err)
	return 1
}
