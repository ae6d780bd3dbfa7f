package linux

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by LockFile's error if another process held the lock all the time.
var ErrLocked = errors.New("locked by another process")

// LockFile takes an exclusive lock (flock(2)) on a file at path, which it creates if necessary. It waits
// for at most limit, and returns a function that removes the file and releases the lock. The lock ends with the
// process, which then leaves an empty file behind.
//
// Anyone who can open a file, even for reading, can lock it. So the file has mode 0600, and one that
// another user may have opened is an error, as is anything that is not an empty regular file.
func LockFile(path string, limit time.Duration) (release func() error, err error) {
	for deadline := time.Now().Add(limit); ; {
		file, err := openLockFile(path)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) // of a regular file: Fd has no side effect
		if err == nil && isAt(file, path) {
			return func() error { return errors.Join(os.Remove(path), file.Close()) }, nil
		}
		_ = file.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, os.NewSyscallError("flock", err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		time.Sleep(5 * time.Millisecond) // a blocking flock(2) has no timeout
	}
}

func openLockFile(path string) (*os.File, error) {
	// O_NONBLOCK: for a FIFO, or a file with a lease on it.
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		stat := info.Sys().(*syscall.Stat_t)
		if int(stat.Uid) != os.Geteuid() || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || stat.Nlink > 1 || info.Size() > 0 {
			err = fmt.Errorf("%s is not a lock file of this user", path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// isAt reports whether path still leads to the file: the previous holder removes it.
func isAt(file *os.File, path string) bool {
	info, err := file.Stat()
	now, nowErr := os.Lstat(path)
	return err == nil && nowErr == nil && os.SameFile(info, now)
}

// PeerCredentials returns who connected a unix socket (SO_PEERCRED): the ids of the peer when it
// called connect, as seen from the caller's namespaces; the pid is 0 where it has none there.
func PeerCredentials(fd uintptr) (uid, pid int, err error) {
	cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return int(cred.Uid), int(cred.Pid), nil
}
