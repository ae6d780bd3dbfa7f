package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
)

// lockTimeout bounds the wait for another process that takes over the same path.
const lockTimeout = 2 * time.Second

// lockPath returns the hidden lock file, next to path, for taking it over. The lock is not on
// the directory: any user who can read that could hold it, and keep crank from starting.
func lockPath(path string) string {
	dir, name := filepath.Split(path)
	return dir + "." + name + ".lock"
}

// errAlive is the error for a path that must not be taken over.
var errAlive = errors.New("already served by a live process: stop it, or bind another path")

// openUnix makes the socket and binds it at its final name: after a rename getsockname(2) would
// still return the old one.
//
// Until the socket has its owner and mode it has fewer permissions than asked for, never more, and
// a stream socket does not listen yet.
func (s *Socket) openUnix(log logr.Logger) (err error) {
	a := s.address
	uid, err := userID(a.Options.User)
	if err != nil {
		return err
	}
	gid, err := groupID(a.Options.Group)
	if err != nil {
		return err
	}
	if s.fd, err = linux.Socket(syscall.AF_UNIX, kind(a)); err != nil {
		return err
	}
	if a.abstract() {
		return linux.BindUnix(s.fd, a.Path)
	}
	if a.Options.Mode != 0 {
		if err := linux.SetSocketMode(s.fd, a.Options.Mode); err != nil {
			return err
		}
	}
	if err := bindPath(s.fd, a.Path); err != nil {
		return err
	}
	if s.file, err = os.Lstat(a.Path); err != nil {
		return err
	}
	if err := s.keepSpare(); err != nil {
		log.Info("no second name for socket; cannot restore path", "address", a.String(), "cause", err.Error())
	}
	if uid < 0 && gid < 0 && s.file.Mode() == fs.ModeSocket|a.Options.Mode {
		return nil // the umask has taken nothing
	}
	return setOwner(a.Path, uid, gid, a.Options.Mode)
}

// setOwner completes what bind could not do: it takes no owner from the socket, and the umask is
// taken off the mode. Where somebody has put something else in its place meanwhile, a link or a file, that is left alone.
func setOwner(path string, uid, gid int, mode fs.FileMode) error {
	if uid < 0 && gid < 0 && mode == 0 {
		return nil
	}
	fd, err := linux.OpenSocketFile(path)
	if err != nil {
		return err
	}
	defer linux.Close(fd)
	if uid >= 0 || gid >= 0 {
		err := linux.ChownOpened(fd, uid, gid)
		if errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("%w: user= and group= need CAP_CHOWN, except for a group of the process itself", err)
		}
		if err != nil {
			return err
		}
	}
	info, err := os.Lstat(path)
	if mode == 0 || err == nil && info.Mode().Perm() == mode {
		return err
	}
	return linux.ChmodOpened(fd, mode)
}

// bindPath binds, and takes over a path that nobody serves any more.
func bindPath(fd int, path string) error {
	err := linux.BindUnix(fd, path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	// Of two that find the same stale path at the same moment the second would remove the socket of
	// the first.
	release, err := linux.LockFile(lockPath(path), lockTimeout)
	switch {
	case err == nil:
		defer func() { _ = release() }() // the lock is released even if removing its file fails
	case errors.Is(err, linux.ErrLocked): // by a process of crank's own user
		return fmt.Errorf("%w, which is taking over the path: try again", err)
	default: // locking is impossible: another user has a file of that name, or some network file systems
	}
	if err := removeStale(path); err != nil {
		return err
	}
	err = linux.BindUnix(fd, path)
	if errors.Is(err, syscall.EADDRINUSE) { // one that found no path at all, and so took no lock
		return errAlive
	}
	return err
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("the path exists and is not a socket (%s): remove it, or bind another path", info.Mode())
	}
	if err := checkStale(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkStale returns nil only if no process has the socket at path: the kernel refuses connections
// of every type. The datagram type comes first, since its EPROTOTYPE tells that there is a live
// stream socket without putting a connection into its queue, and even between its bind(2) and its
// listen(2), when a stream connection is refused as if it were stale (unix_find_bsd in
// net/unix/af_unix.c). The other types are for sandboxes that refuse a wrong type.
func checkStale(path string) error {
	for _, kind := range []int{syscall.SOCK_DGRAM, syscall.SOCK_STREAM, syscall.SOCK_SEQPACKET} {
		err := try(path, kind)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
		case errors.Is(err, syscall.ENOENT): // removed by its owner meanwhile
			return nil
		case err == nil, errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EAGAIN),
			errors.Is(err, syscall.EPERM): // a datagram socket that is connected to somebody else
			return errAlive
		default:
			return fmt.Errorf("cannot tell whether a live process serves the path (%w): remove it if none does", err)
		}
	}
	return nil
}

func try(path string, kind int) error {
	fd, err := linux.Socket(syscall.AF_UNIX, kind|syscall.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	defer linux.Close(fd)
	return linux.ConnectUnix(fd, path)
}

// unixNetwork is the network of a socket type.
func unixNetwork(kind int) string {
	for _, network := range unixNetworks {
		if kinds[network] == kind {
			return network
		}
	}
	return "unix"
}

// userID and groupID return -1, which chown(2) leaves alone, for "".
func userID(name string) (int, error) {
	return ownerID("user", name, func() (string, error) {
		found, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return found.Uid, nil
	})
}

func groupID(name string) (int, error) {
	return ownerID("group", name, func() (string, error) {
		found, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return found.Gid, nil
	})
}

func ownerID(option, name string, lookUp func() (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	number := name
	if _, err := strconv.ParseUint(name, 10, 64); err != nil {
		if number, err = lookUp(); err != nil {
			return -1, fmt.Errorf("option %s: %w: use a name of this system, or a number", option, err)
		}
	}
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil || id == 1<<32-1 {
		return -1, fmt.Errorf("option %s: %q is out of range", option, name)
	}
	return int(id), nil
}
