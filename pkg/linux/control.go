package linux

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ListenControl returns a stream socket that listens at path, a file of mode perm that nobody
// else could open at any moment: on Linux bind takes the mode of the new file from the inode of the
// unbound socket, so the mode is right before there is a file, whatever the umask (which can only
// remove bits). The caller closes the file and removes the path.
func ListenControl(path string, perm fs.FileMode) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	if err := listenControl(fd, path, perm); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func listenControl(fd int, path string, perm fs.FileMode) error {
	if err := unix.Fchmod(fd, uint32(perm.Perm())); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return errors.Join(os.NewSyscallError("listen", err), unix.Unlink(path))
	}
	return nil
}

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
