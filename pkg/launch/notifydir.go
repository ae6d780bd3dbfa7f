package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// NotifyDir makes the directory for the notify sockets of an instance, and clears it of what a crank
// that was killed has left there. Others may pass through it to a name that they know, so that an app
// that drops privileges reaches its socket, but not list it.
func NotifyDir(prefix, name string) (string, error) {
	dir := filepath.Join(prefix, name+".notify")
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of crank's own user: remove it", dir)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // whatever the umask was
		return "", err
	}
	return dir, removeStale(dir)
}

// removeStale removes the sockets that nobody reads any more; another crank of the same name, without
// a control socket, may have its own there.
func removeStale(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		conn, err := net.Dial("unixgram", path)
		switch {
		case err == nil:
			conn.Close()
		case errors.Is(err, syscall.ECONNREFUSED):
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}
