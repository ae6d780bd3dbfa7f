package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// NotifyDir makes the directory for the notify sockets of an instance, and clears it of what a crank
// that was killed has left there. Others may pass through it to a name that they know, so that an app
// that drops privileges reaches its socket, but not list it.
//
// All is done to the directory that was opened and looked at: who can write to prefix may put another one, or a link, in its
// place at any moment.
func NotifyDir(prefix, name string) (string, error) {
	path := filepath.Join(prefix, name+".notify")
	return path, makeNotifyDir(path)
}

func makeNotifyDir(path string) error {
	made := os.Mkdir(path, 0o711)
	if made != nil && !errors.Is(made, os.ErrExist) {
		return made
	}
	notOwn := fmt.Errorf("%s is not a directory of crank's own user: remove it", path)
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return notOwn
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return notOwn
	}
	if err := dir.Chmod(0o711); err != nil { // whatever the umask was
		return err
	}
	if made == nil {
		return nil // nothing is in it
	}
	return removeStale(dir)
}

// removeStale removes the sockets that nobody reads any more; another crank of the same name, without
// a control socket, may have its own there.
func removeStale(dir *os.File) error {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() != os.ModeSocket {
			continue
		}
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
