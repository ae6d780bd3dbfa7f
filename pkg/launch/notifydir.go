package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// NotifyDir makes the directory for the notify sockets of an instance, and clears it of what a crank
// that was killed has left there. Others may pass through it to a name that they know, so that an app
// that drops privileges reaches its socket, but not list it. Whether they reach the directory is another matter: see closedDirectory.
// A directory that crank did not create is left alone, and is an error.
//
// All is done to the directory that was opened and looked at: who can write to prefix may put another one, or a link, in its
// place at any moment.
func NotifyDir(prefix, name string) (string, error) {
	path := filepath.Join(prefix, name+".notify")
	return path, makeNotifyDir(path)
}

func makeNotifyDir(path string) error {
	made := os.Mkdir(path, notifyDirMode)
	if made != nil && !errors.Is(made, os.ErrExist) {
		return made
	}
	dir, err := openNotifyDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if made == nil {
		return dir.Chmod(notifyDirMode) // whatever the umask was
	}
	entries, err := entriesOfNotifyDir(dir)
	if err != nil {
		return err
	}
	if err := dir.Chmod(notifyDirMode); err != nil {
		return err
	}
	return removeStale(dir, entries)
}

// openNotifyDir opens a directory of crank's own user.
func openNotifyDir(path string) (*os.File, error) {
	notOwn := fmt.Errorf("%s is not a directory of crank's own user: remove it", path)
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil, notOwn
	}
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err == nil && int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		err = notOwn
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// removeNotifyDir removes the directory if it is empty, and as crank leaves it.
func removeNotifyDir(path string) {
	dir, err := openNotifyDir(path)
	if err != nil {
		return
	}
	defer dir.Close()
	if entries, err := entriesOfNotifyDir(dir); err == nil && len(entries) == 0 {
		_ = syscall.Rmdir(path)
	}
}

// notifyDirMode is the mode of the directory, and its mark.
const notifyDirMode = 0o711

// entriesOfNotifyDir lists the directory, or returns an error unless all of it looks as crank leaves it. An app may have a directory of
// the same name, with any mode. Kubernetes gives the group of a volume all permissions (fsGroup).
func entriesOfNotifyDir(dir *os.File) ([]os.DirEntry, error) {
	info, err := dir.Stat()
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()|0o060 != notifyDirMode|0o060 || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Type() != os.ModeSocket }) {
		return nil, fmt.Errorf("%s was not created by crank: choose another -name or -prefix, or remove it", dir.Name())
	}
	return entries, nil
}

// closedDirectory returns the first directory on the way to dir that others may not search (they have no x permission); empty:
// none. The owner and the group of a directory do not matter, since the app may become any user. Access control lists are ignored.
func closedDirectory(dir string) string { return closed(dir, maxLinks) }

// maxLinks is how many symbolic links the kernel follows in one path: path_resolution(7).
const maxLinks = 40

func closed(path string, links int) string {
	for ; ; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		switch {
		case err != nil: // using the path reports the error
		case info.Mode()&os.ModeSymlink != 0 && links > 0:
			target, _ := os.Readlink(path)
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			if found := closed(target, links-1); found != "" {
				return found
			}
		case info.IsDir() && info.Mode().Perm()&0o001 == 0:
			return path
		}
		if path == filepath.Dir(path) {
			return ""
		}
	}
}

// removeStale removes the sockets that nobody reads any more; another crank of the same name, without
// a control socket, may have its own there.
func removeStale(dir *os.File, entries []os.DirEntry) error {
	for _, e := range entries {
		conn, err := net.Dial("unixgram", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), e.Name()))
		switch {
		case err == nil:
			conn.Close()
		case errors.Is(err, syscall.ECONNREFUSED):
			if err := linux.RemoveAt(dir, e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
