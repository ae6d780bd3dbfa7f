package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/crankctl/crank/test/disguise"
)

// noticesFD is NOTIFY_FD for the orphans: without it crank would refuse their messages, since it cannot identify their generation.
const noticesFD = 3

// startDisguised starts orphans that show an environment other than their own, and returns once they exist.
func (o options) startDisguised() error {
	files := []*os.File{nil, os.Stdout, os.Stderr}
	if o.disguisedSays != "" {
		fd, err := strconv.Atoi(os.Getenv("NOTIFY_FD"))
		if err == nil {
			fd, err = syscall.Dup(fd)
		}
		if err != nil {
			return fmt.Errorf("NOTIFY_FD: %w", err)
		}
		notify := os.NewFile(uintptr(fd), "notify")
		defer notify.Close()
		files = append(files, notify)
	}
	between, err := os.StartProcess("/proc/self/exe",
		[]string{"app-orphan", "-orphan", "-orphan-life", o.orphanLife.String(), "-disguise", o.disguise,
			"-disguised", strconv.Itoa(o.disguised), "-disguised-says", o.disguisedSays},
		&os.ProcAttr{Files: files})
	if err != nil {
		return err
	}
	state, err := between.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("cannot start the orphans: %v", state)
	}
	return err
}

// forkDisguised forks the orphans: copies of this process, so they show what it shows and take next to no memory. They end on TERM.
func forkDisguised(o options) int {
	notices := -1
	if o.disguisedSays != "" {
		notices = noticesFD
	}
	if o.disguise != "" {
		if err := disguise.Environ(o.disguise); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			return 1
		}
	}
	if errno := fork(o.disguised, notices, []byte(o.disguisedSays+"\n"), int(o.orphanLife/speechInterval)); errno != 0 {
		fmt.Fprintln(os.Stderr, "app: fork:", errno)
		return 1
	}
	return 0
}

// speechInterval is how often a disguised orphan sends a notification, if it sends any.
const speechInterval = 100 * time.Millisecond

// fork makes n copies of this process, each in its own session. A copy writes text to fd (-1: none) on each of its turns, then exits.
// The Go runtime does not work in a copy, so it only makes system calls. TERM ends it; all other signals are blocked.
//
//go:norace
func fork(n, fd int, text []byte, turns int) syscall.Errno {
	const setMask, term = 2, uint64(1) << (syscall.SIGTERM - 1)
	runtime.LockOSThread() // until the process ends
	mask, pause := ^term, syscall.NsecToTimespec(speechInterval.Nanoseconds())
	var action [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags, an empty mask
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGTERM), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	for range n {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid != 0 {
			continue
		}
		syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
		syscall.RawSyscall(syscall.SYS_CLOSE, 1, 0, 0)
		syscall.RawSyscall(syscall.SYS_CLOSE, 2, 0, 0) // crank forwards the output until the last process closes it
		for range turns {
			if fd >= 0 {
				syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
			}
			syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		}
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return 0
}
