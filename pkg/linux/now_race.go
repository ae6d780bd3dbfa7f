//go:build race

package linux

import "syscall"

// These calls tell the race detector the order of events.

// ReadNow is read(2).
func ReadNow(fd int, p []byte) (n int, errno syscall.Errno) { return result(syscall.Read(fd, p)) }

// WriteNow is write(2).
func WriteNow(fd int, p []byte) (n int, errno syscall.Errno) { return result(syscall.Write(fd, p)) }

func result(n int, err error) (int, syscall.Errno) {
	errno, _ := err.(syscall.Errno)
	return max(n, 0), errno
}
