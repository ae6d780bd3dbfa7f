//go:build !race

package linux

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadNow is read(2) of a non-blocking descriptor. The Go scheduler does not know that it is a system call, and provides no other thread
// meanwhile, so it must not wait for anything. p must not be empty.
func ReadNow(fd int, p []byte) (n int, errno syscall.Errno) {
	return transferNow(unix.SYS_READ, fd, p)
}

// WriteNow is write(2), as ReadNow is read(2).
func WriteNow(fd int, p []byte) (n int, errno syscall.Errno) {
	return transferNow(unix.SYS_WRITE, fd, p)
}

func transferNow(call uintptr, fd int, p []byte) (n int, errno syscall.Errno) {
	moved, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(moved), 0
}
