package linux

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// LockDirectory takes an exclusive lock on a directory, for at most limit, and returns what
// releases it. It needs no file of its own and ends with the process (flock(2)).
func LockDirectory(dir string, limit time.Duration) (release func() error, err error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(limit)
	for {
		// A descriptor of a directory is never non-blocking: Fd has no side effect here.
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file.Close, nil
		}
		retry := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR)
		if !retry || time.Now().After(deadline) {
			return nil, errors.Join(os.NewSyscallError("flock", err), file.Close())
		}
		time.Sleep(5 * time.Millisecond) // a flock(2) that waits cannot be given a limit
	}
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
