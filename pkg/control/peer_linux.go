package control

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/listening"
)

// checkServer refuses a server that somebody else runs: it would get what requests hold. The server
// must be of this user or root. Root may also talk to another user's crank, as `docker exec -u 0`
// does, but not where a third user could have put the socket.
func checkServer(conn net.Conn, path string) error {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return checkListener(tcp.AddrPort())
	}
	uid, err := serverUID(conn.(*net.UnixConn))
	if err != nil {
		return err
	}
	own := os.Geteuid()
	if uid == own || uid == 0 || own == 0 && onlyChangedBy(uid, path) {
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

// maxLinks is how many symbolic links a path may lead through (path_resolution(7)).
const maxLinks = 40

// onlyChangedBy reports whether nobody but uid and root decides what is at path: on the way all directories and links belong to
// them, and others can write to none of the directories, or to sticky ones, where they cannot replace what is not theirs.
// To the last one they cannot write at all: what is missing there they could make.
func onlyChangedBy(uid int, path string) bool {
	path, err := filepath.Abs(path)
	for links := 0; err == nil && links <= maxLinks; links++ {
		link, safe := walk(uid, path)
		if link == "" {
			return safe
		}
		path = link
	}
	return false
}

// walk looks at all that is on the way to path, down to the first link, and returns the path with that resolved; "" where there is
// none.
func walk(uid int, path string) (resolved string, safe bool) {
	names := strings.Split(strings.TrimPrefix(path, "/"), "/")
	at := "/"
	for i := range len(names) + 1 {
		info, err := os.Lstat(at)
		if err != nil {
			return "", false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || int(stat.Uid) != uid && stat.Uid != 0 {
			return "", false
		}
		if info.Mode().Type() == fs.ModeSymlink {
			link, err := os.Readlink(at)
			if !filepath.IsAbs(link) {
				link = filepath.Join(filepath.Dir(at), link)
			}
			return filepath.Join(append([]string{link}, names[i:]...)...), err == nil
		}
		if i == len(names) {
			break // the socket
		}
		last := i == len(names)-1
		if info.Mode().Perm()&0o022 != 0 && (last || info.Mode()&fs.ModeSticky == 0) {
			return "", false
		}
		at = filepath.Join(at, names[i])
	}
	return "", true
}

// checkListener refuses a port of this machine's loopback on which another user listens: while crank is not there anybody may, and
// would be sent the token. Elsewhere nobody can tell.
func checkListener(server netip.AddrPort) error {
	if !server.Addr().IsLoopback() {
		return nil
	}
	sockets, err := listening.On(server)
	if err != nil {
		return fmt.Errorf("cannot find out who listens on %v: %w", server, err)
	}
	if len(sockets) == 0 {
		return fmt.Errorf("cannot find out who listens on %v: nobody does any more", server)
	}
	own := os.Geteuid()
	for _, s := range sockets {
		if s.UID != own && s.UID != 0 {
			return fmt.Errorf("%v is owned by uid %d, which is neither uid %d nor root: it would be sent the token", server, s.UID, own)
		}
	}
	return nil
}
