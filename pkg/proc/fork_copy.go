//go:build !amd64 && !arm64

package proc

import (
	"runtime"
	"syscall"
	"unsafe"
)

// cloneMemory is 0: the child gets a copy of the parent's memory. vfork is written in assembly (fork_vfork.go).
const cloneMemory = 0

// rawClone is clone(2) with a copy of the caller's stack. It returns 0 in the child and the pid, or -errno, in the parent.
//
//go:norace
//go:nosplit
func rawClone(flags uintptr, pidfd *int32) (pid int) {
	stack := uintptr(0)
	if runtime.GOARCH == "s390x" {
		flags, stack = stack, flags // CONFIG_CLONE_BACKWARDS2
	}
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags, stack, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	return int(r)
}
