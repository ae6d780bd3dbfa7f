// Package rundir finds the runtime directory: where control sockets and saved commands are.
package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// place is one directory that may serve.
type place struct {
	path     string
	existing bool // used if it is there, never made
	private  bool // its parent is writable for everybody: it must be provably our own
}

// places are in the order in which they are tried. $XDG_RUNTIME_DIR counts only if it is absolute,
// as the XDG base directory specification says.
func places() []place {
	list := []place{{path: "/var/crank", existing: true}, {path: "/run/crank"}}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		list = append(list, place{path: filepath.Join(dir, "crank")})
	}
	return append(list, sharedMemory()...)
}

// Candidates returns the directories that may be the runtime directory of a crank of this user, in
// the order in which crank tries them. Not all of them exist. Private ones that another user has
// made are left out.
func Candidates() []string {
	var paths []string
	for _, p := range places() {
		if err := p.checkOwner(os.Geteuid()); p.private && err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		paths = append(paths, p.path)
	}
	return paths
}

// OfOthers returns the private runtime directories of other users, which only root can access:
// none for anybody else. Any user can create one at any time.
func OfOthers() []string {
	if os.Geteuid() != 0 {
		return nil
	}
	return sharedMemoryOfOthers()
}

// Make returns the absolute path of the runtime directory: asked, or where that is "" the first of
// Candidates that can be made or used. It has created and removed a file there. A directory that
// it makes has mode 0711, so that an app that drops privileges reaches a socket in it by name.
func Make(asked string) (string, error) {
	if asked == "" {
		return first(places())
	}
	path, err := Absolute(asked)
	if err != nil {
		return "", fmt.Errorf("cannot use runtime directory %s: %w", asked, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("cannot make runtime directory %s: %w", path, err)
	}
	if err := (place{path: path}).use(); err != nil {
		return "", fmt.Errorf("cannot use runtime directory %s: %w", path, err)
	}
	return path, nil
}

// Absolute is filepath.Abs with getcwd(3): the path keeps naming the same file if a symlink in $PWD changes, which filepath.Abs
// would follow.
func Absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	here, err := syscall.Getwd()
	return filepath.Join(here, path), os.NewSyscallError("getcwd", err)
}

// Remake makes a runtime directory again that Make has returned and somebody has deleted. was is what os.Stat has returned for it, nil
// if unknown: the same one is fine as it is. Another one that is there must belong to the caller or root: whoever owns it can change
// what is in it.
func Remake(path string, was fs.FileInfo) error {
	mode := fs.FileMode(0o711)
	if was != nil {
		mode = was.Mode().Perm()
	}
	// With its owner, since the inode number of a deleted directory is used again.
	if is, err := os.Stat(path); err == nil && os.SameFile(is, was) && ownerOf(is) == ownerOf(was) {
		return nil
	}
	err := mkdir(path, mode)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if owner := ownerOf(info); !info.IsDir() || owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("cannot use %s: it is no directory of this user", path)
	}
	return nil
}

// ownerOf returns the user id of a file, or -1.
func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

func first(list []place) (string, error) {
	var reasons []string
	for _, p := range list {
		err := p.use()
		if err == nil {
			return p.path, nil
		}
		reasons = append(reasons, p.path+": "+reason(err))
	}
	return "", fmt.Errorf("no runtime directory can be made or used (%s)", strings.Join(reasons, "; "))
}

// reason drops the path that the caller has named already.
func reason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}

func (p place) use() error {
	if !p.existing {
		if err := mkdir(p.path, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if p.private {
		if err := p.checkOwner(os.Geteuid()); err != nil {
			return err
		}
	}
	return writable(p.path)
}

func mkdir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	// By descriptor: who can write to the parent may put a link in its place at any moment.
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(dir.Chmod(mode), dir.Close()) // whatever the umask took
}

// checkOwner refuses what somebody else may have put there first. Once it has passed, the parent's
// sticky bit keeps others from replacing the directory.
func (p place) checkOwner(uid int) error {
	info, err := os.Lstat(p.path)
	if err != nil {
		return err
	}
	switch {
	case !info.IsDir():
		return errors.New("not a directory")
	case ownerOf(info) != uid:
		return errors.New("belongs to another user")
	case info.Mode().Perm()&0o066 != 0:
		return fmt.Errorf("has mode %#o, want 0711: others must neither list it nor write to it", info.Mode().Perm())
	}
	return nil
}

// writable asks the only authority: permission bits say nothing about read-only mounts, security
// modules, or a file system that is full.
func writable(dir string) error {
	path := filepath.Join(dir, ".crank-"+strconv.FormatUint(rand.Uint64(), 36))
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return errors.Join(syscall.Close(fd), os.Remove(path))
}
