package control

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// checkServer refuses a server that somebody else runs: it would get what requests hold. The server
// must be of this user or root. Root may also talk to another user's crank, as `docker exec -u 0`
// does, but not where a third user could have put the socket.
func checkServer(conn *net.UnixConn, path string) error {
	uid, err := serverUID(conn)
	if err != nil {
		return err
	}
	own := os.Geteuid()
	if uid == own || uid == 0 || own == 0 && onlyWritableBy(filepath.Dir(path), uid) {
		return nil
	}
	return fmt.Errorf("%s is served by uid %d, which is neither uid %d nor root", path, uid, own)
}

// serverUID returns who called listen (SO_PEERCRED, unix(7)).
func serverUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, os.NewSyscallError("getsockopt SO_PEERCRED", credErr)
	}
	return int(cred.Uid), nil
}

// onlyWritableBy reports whether nobody but uid and root can make files in dir.
func onlyWritableBy(dir string, uid int) bool {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o022 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(stat.Uid) == uid || stat.Uid == 0)
}
