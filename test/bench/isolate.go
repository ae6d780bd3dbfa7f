package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolated is set in the environment of the program's second run.
const isolated = "BENCH_ISOLATED"

// isolate runs this program again in mount and pid namespaces of its own, where that can be done: crank with
// nothing set then finds a /run that no other crank uses, files are on tmpfs, and whatever is left at the end goes
// with the namespace. done is true where that run is over.
func isolate() (code int, done bool) {
	if os.Getenv(isolated) != "" || os.Getuid() != 0 {
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		return 0, false // without the right to; what follows works, but is not alone
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	signal.Ignore(os.Interrupt) // a terminal sends it to both
	go func() {
		for sig := range signals {
			_ = cmd.Process.Signal(sig) // it may have ended
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), true
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1, true
}

// workspace returns a new directory on tmpfs. The caller removes it.
func workspace() (string, error) {
	if os.Getenv(isolated) == "" {
		return os.MkdirTemp("/dev/shm", "crank-bench-")
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", os.NewSyscallError("mount", err)
	}
	for _, m := range []struct{ dir, kind string }{{"/run", "tmpfs"}, {"/dev/shm", "tmpfs"}, {"/proc", "proc"}} {
		if err := unix.Mount("none", m.dir, m.kind, unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return "", fmt.Errorf("cannot mount %s: %w", m.dir, err)
		}
	}
	if err := os.Chmod("/run", 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("/run", "bench-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // some servers change their user
}
