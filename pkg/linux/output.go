package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// WaitWritable blocks until fd can be written to, or a write to it would fail.
func WaitWritable(fd int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		if err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}

// Unread returns how many bytes wait to be read in a pipe (FIONREAD of pipe(7), the same number as
// TIOCINQ), or in the next datagram of a socket.
func Unread(fd int) (int, error) {
	for {
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != unix.EINTR {
			return n, os.NewSyscallError("ioctl FIONREAD", err)
		}
	}
}
