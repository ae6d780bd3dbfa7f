package linux

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PeekAny returns any child that has ended, and leaves its status to Wait (waitid(2), WNOWAIT). pid is 0 where none has ended yet;
// more is false where there are no children at all (ECHILD).
func PeekAny() (pid int, more bool, err error) {
	var info unix.Siginfo
	err = retry(func() error {
		return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	})
	if err == unix.ECHILD {
		return 0, false, nil
	}
	// The first field after three numbers, aligned like a pointer (struct siginfo in asm-generic/siginfo.h).
	const align = unsafe.Sizeof(uintptr(0))
	const offset = (3*4 + align - 1) / align * align
	pid = int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), offset)))
	return pid, err == nil, os.NewSyscallError("waitid", err)
}

// Wait takes the status of a child that has ended.
func Wait(pid int) (status WaitStatus, err error) {
	err = retry(func() (err error) {
		_, err = unix.Wait4(pid, &status, unix.WALL, nil)
		return err
	})
	return status, os.NewSyscallError("wait4", err)
}

// Readable reports whether a read would return immediately, also with an error or at the end. It does not block.
func Readable(fd int) bool {
	n := 0
	err := retry(func() (err error) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err
	})
	return n > 0 || err != nil
}
