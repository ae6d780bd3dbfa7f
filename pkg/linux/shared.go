package linux

import (
	"errors"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags are the results of F_GETFL, F_GETOWN_EX and F_GETSIG of fcntl(2). They belong to an open file description, and so to all
// processes that share it.
type Flags struct {
	Status, Signal int
	Owner          Owner
}

// Owner is the process or process group that gets the signals of a file: struct f_owner_ex of fcntl(2). F_GETOWN returns a small
// process group as if it were an error.
type Owner struct{ Type, ID int32 }

// settable are the status flags that F_SETFL can change (SETFL_MASK in fs/fcntl.c).
const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME | unix.O_ASYNC

// ReadFlags reads the flags that SetFlags can set.
func ReadFlags(fd int) (f Flags, err error) {
	if f.Status, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		f.Signal, err = unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0)
	}
	if err == nil {
		err = fcntlOwner(fd, unix.F_GETOWN_EX, &f.Owner)
	}
	f.Status &= settable
	return f, os.NewSyscallError("fcntl", err)
}

// SetFlags sets flags that ReadFlags returned.
func SetFlags(fd int, f Flags) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, f.Status)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETSIG, f.Signal)
	}
	if err == nil {
		err = fcntlOwner(fd, unix.F_SETOWN_EX, &f.Owner)
	}
	return os.NewSyscallError("fcntl", err)
}

func fcntlOwner(fd, command int, owner *Owner) error {
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), uintptr(command), uintptr(unsafe.Pointer(owner)))
	if errno != 0 {
		return errno
	}
	return nil
}

// HasPeer reports whether a socket is connected. A connected datagram socket receives from its peer only.
func HasPeer(fd int) (bool, error) {
	_, err := unix.Getpeername(fd)
	switch {
	case err == nil, errors.Is(err, unix.EAFNOSUPPORT): // a family that x/sys does not decode
		return true, nil
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.EINVAL):
		return false, nil
	}
	return false, os.NewSyscallError("getpeername", err)
}

// Disconnect removes the peer of a socket (connect(2) with AF_UNSPEC). The socket also loses an address or port that the kernel chose,
// and its binding to an interface (__udp_disconnect in net/ipv4/datagram.c).
func Disconnect(fd int) error {
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	return os.NewSyscallError("connect AF_UNSPEC", retry(func() error {
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
		if errno != 0 {
			return errno
		}
		return nil
	}))
}

// IsShutDown reports whether shutdown(2) has ended the reception of a socket, according to poll(2). A shutdown of sending alone cannot be
// seen.
func IsShutDown(fd int) (bool, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	err := retry(func() error {
		_, err := unix.Poll(poll, 0)
		return err
	})
	return poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0, os.NewSyscallError("poll", err)
}

// RenameExchange exchanges two files, atomically.
func RenameExchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// RenameNew renames a file unless the new name exists.
func RenameNew(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &fs.PathError{Op: "rename", Path: to, Err: err}
	}
	return nil
}
