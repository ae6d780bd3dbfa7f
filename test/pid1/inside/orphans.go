package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// orphans is `inside orphans N BATCH [CODE]`: it makes N orphans, then prints "done", and exits with
// CODE, or makes as many more as each line of stdin says. A process forks BATCH others, which exit, and
// exits itself without having waited for them: so they are the init's.
func orphans(args []string) (int, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, err
	}
	batch, err := strconv.Atoi(args[1])
	if err != nil {
		return 0, err
	}
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	if err := makeOrphans(n, batch); err != nil {
		return 0, err
	}
	if len(args) > 2 {
		return strconv.Atoi(args[2])
	}
	for more := bufio.NewScanner(os.Stdin); more.Scan(); {
		if n, err = strconv.Atoi(more.Text()); err != nil {
			return 0, err
		}
		if err := makeOrphans(n, batch); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// makeOrphans makes n in batches, and says so.
func makeOrphans(n, batch int) error {
	for made := 0; made < n; made += batch {
		pid, errno := parent(batch)
		if errno != 0 {
			return fmt.Errorf("cannot fork after %d orphans: %w", made, errno)
		}
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		for err == syscall.EINTR {
			_, err = syscall.Wait4(pid, &status, 0, nil)
		}
		if err != nil {
			return err
		}
		if status.ExitStatus() != 0 {
			return fmt.Errorf("a batch ended with status %d: it could not fork", status.ExitStatus())
		}
	}
	fmt.Println("done")
	return nil
}

var (
	allSignals = ^uint64(0)
	oldSignals uint64
)

// parent forks a process that forks batch others and exits. Signals are blocked meanwhile: the
// children run in a copy of this program, or in its very memory, and no handler may run there.
//
//go:norace
//go:noinline
func parent(batch int) (pid int, errno syscall.Errno) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&allSignals)), uintptr(unsafe.Pointer(&oldSignals)), 8, 0, 0)
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if r == 0 && errno == 0 {
		failed := uintptr(0)
		for range batch {
			if child() < 0 {
				failed = 1
			}
		}
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, failed, 0, 0)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&oldSignals)), 0, 8, 0, 0)
	return int(r), errno
}
