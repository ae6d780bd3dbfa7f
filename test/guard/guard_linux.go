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

// grace is for what tests that have passed have left, to end by itself; a variable for this package's own test alone.
var grace = 10 * time.Second

// patience is for what has been killed, to end on a busy machine.
const patience = 30 * time.Second

// guard starts the guarded run and returns its exit code. Where a signal has ended it, it does not return: that signal ends
// this process once all is cleaned up.
func guard() int {
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends that has forked (PR_SET_PDEATHSIG(2const))
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
		select {} // the signal may come to another thread
	}
	return verdict(status)
}

// Adopt makes this process the parent of all orphans below it, for KillRest, and returns a new directory, which is in its environment
// as TMPDIR and XDG_RUNTIME_DIR from now on. The caller removes it.
func Adopt() (dir string, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return "", fmt.Errorf("cannot become a subreaper: %w", err)
	}
	if dir, err = directory(os.TempDir()); err != nil {
		return "", err
	}
	return dir, errors.Join(os.Setenv("TMPDIR", dir), os.Setenv("XDG_RUNTIME_DIR", dir))
}

// directory makes a directory below parent. Its name is short: a path of a socket has 107 bytes at most (unix(7)).
func directory(parent string) (string, error) {
	for {
		dir := filepath.Join(parent, "t"+strconv.FormatUint(uint64(rand.Uint32N(36*36*36*36)), 36))
		if err := os.Mkdir(dir, 0o755); !os.IsExist(err) {
			if err == nil {
				err = os.Chmod(dir, 0o755) // whatever the umask took: some apps run as another user
			}
			return dir, err
		}
	}
}

// start starts the guarded run, in a process group of its own: what a terminal sends comes to the guard alone. From caught come the
// signals that end the guard, and HUP unless it was started with that ignored.
func start() (pid int, caught chan os.Signal, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	if info, err := os.Stat(program); err == nil {
		_ = os.Chmod(program, info.Mode()|0o055) // whatever the umask took: some tests start it as another user
	}
	nohup := signal.Ignored(syscall.SIGHUP) || ignores(os.Getppid(), syscall.SIGHUP)
	caught = make(chan os.Signal, 16)
	signal.Notify(caught) // what this process catches has its default action in the guarded run
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

// watch reaps until the guarded run has ended, and returns how. A signal kills it, which by names then. But QUIT is passed on:
// go test sends that for the stacks, and kills later.
func watch(pid int, caught <-chan os.Signal) (status syscall.WaitStatus, by syscall.Signal) {
	ended := make(chan syscall.WaitStatus)
	go func() {
		for {
			var status syscall.WaitStatus
			if got, err := syscall.Wait4(-1, &status, 0, nil); got == pid || err != nil && err != syscall.EINTR {
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

// verdict returns the exit code, once nothing is left.
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
		fmt.Fprintf(os.Stderr, "the tests have left processes behind, which were killed: %s\n", strings.Join(left, ", "))
		return 1
	}
	return code
}

// KillRest waits a time for the end of all that is below this process, kills it after a time, and returns what it has killed.
func KillRest(wait time.Duration) (killed []string) {
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
		for _, pid := range processes.Children(os.Getpid()) { // theirs become this one's
			if state, _ := processes.Stat(pid); state != "Z" && syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed = append(killed, fmt.Sprintf("%d (%s)", pid, processes.Name(pid)))
			}
		}
	}
	return append(killed, "and some that do not end")
}

// ignores reports whether a process ignores a signal, as /proc/PID/status says; false where it cannot be read. Of this process it
// would say too little: package origin changes its own signals before anybody else can look.
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
