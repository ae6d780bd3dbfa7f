//go:build !amd64 && !arm64

package main

import "syscall"

// child is fork and exit. It returns a pid or -errno.
//
//go:norace
//go:noinline
//go:nosplit
func child() int {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	switch {
	case errno != 0:
		return -int(errno)
	case r == 0:
		syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	return int(r)
}
