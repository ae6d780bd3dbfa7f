package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/crankctl/crank/pkg/listening"
)

// identify refuses a server of another user, which would receive the requests. It returns the
// connection to use from then on, and the peer's user id.
//
// On a unix socket the peer is the writer of the responses. The caller of listen(2) (SO_PEERCRED) says little:
// an app holds the listening sockets that crank made, accepts on them, and may give one of them the
// name of a control socket.
func identify(ctx context.Context, conn net.Conn, path string) (checked net.Conn, uid int, err error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return conn, os.Geteuid(), checkListener(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	}
	uid, err = listenerUID(unix)
	if err != nil {
		return nil, -1, err
	}
	if err := mayServe(uid, path); err != nil {
		return nil, uid, fmt.Errorf("%s is served by %w", path, err)
	}
	a := &attested{Conn: conn, unix: unix, path: path, uid: unknown}
	if err := a.attest(); err != nil {
		return nil, uid, fmt.Errorf("%s: %w", path, err)
	}
	if err := greet(ctx, a); err != nil {
		return nil, uid, fmt.Errorf("%s: %w", path, cmp.Or(a.refusal, err))
	}
	return a, a.uid, nil
}

// listenerUID returns the user that called listen (SO_PEERCRED, unix(7)).
func listenerUID(conn *net.UnixConn) (uid int, err error) {
	err = control(conn, func(fd int) error {
		cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err == nil {
			uid = int(cred.Uid)
		}
		return os.NewSyscallError("getsockopt SO_PEERCRED", err)
	})
	return uid, err
}

// control calls do with the descriptor of a connection.
func control(conn *net.UnixConn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}

// unknown is the uid of an attested connection on which nothing has been read.
const unknown = -1

// attested is a connection that yields only data written by one user, of those who may serve
// path. The kernel attaches the writer's credentials to each piece (SCM_CREDENTIALS, unix(7)): the real user id, so
// a set-user-id program that was given the connection does not count as root. Descriptors sent
// along are not received: there is no room for them.
type attested struct {
	net.Conn
	unix    *net.UnixConn
	path    string
	uid     int
	refusal error  // why Read has failed, if because of the writer
	room    []byte // for the credentials alone
}

// attest has the kernel attach credentials to everything written from now on. What was written earlier
// has none: a peer that answers before the request is not crank.
func (a *attested) attest() error {
	a.room = make([]byte, syscall.CmsgSpace(syscall.SizeofUcred))
	return control(a.unix, func(fd int) error {
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_PASSCRED", err)
		}
		_, _, err := syscall.Recvfrom(fd, make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == nil:
			return errors.New("response or end of connection before the request: is this crank's control socket?")
		case !errors.Is(err, syscall.EAGAIN):
			return os.NewSyscallError("recvfrom", err)
		}
		return nil
	})
}

// Read fails if another user wrote what would be read.
func (a *attested) Read(p []byte) (n int, err error) {
	n, room, _, _, err := a.unix.ReadMsgUnix(p, a.room)
	switch {
	case errors.Is(err, io.EOF):
		return 0, io.EOF // as Read does: ReadMsgUnix wraps it
	case n <= 0 || err != nil:
		return 0, err
	}
	received(a.unix)
	if a.refusal = a.check(a.room[:room]); a.refusal != nil {
		return 0, a.refusal
	}
	return n, nil
}

// check refuses the writer named in a control message.
func (a *attested) check(message []byte) error {
	uid, err := writer(message)
	switch {
	case err != nil:
		return err
	case a.uid == uid:
		return nil
	case a.uid != unknown:
		return fmt.Errorf("answered by uid %d and by uid %d", a.uid, uid)
	}
	if err := mayServe(uid, a.path); err != nil {
		return fmt.Errorf("answered by %w", err)
	}
	a.uid = uid
	return nil
}

// writer returns the user id in a control message.
func writer(message []byte) (uid int, err error) {
	parsed, err := syscall.ParseSocketControlMessage(message)
	if err != nil {
		return 0, os.NewSyscallError("recvmsg", err)
	}
	for _, m := range parsed {
		if cred, err := syscall.ParseUnixCredentials(&m); err == nil {
			return int(cred.Uid), nil
		}
	}
	return 0, errors.New("cannot determine who sent the response: no peer credentials")
}

// mayServe returns an error that describes the user if that user may not receive the requests to path.
// This process's own user and root may. Root may also talk to another user's crank, as `docker exec
// -u 0` does, but only where no third user could have placed the socket.
func mayServe(uid int, path string) error {
	own := os.Geteuid()
	trail, err := follow(path)
	if err != nil {
		return fmt.Errorf("uid %d, and cannot check its path: %w", uid, err)
	}
	switch {
	case anonymous(uid):
		return fmt.Errorf("a user without an id in this user namespace (uid %d)", uid)
	case uid == own, uid == 0:
	case own != 0:
		return fmt.Errorf("uid %d, which is neither uid %d nor root", uid, own)
	default:
		if err := trail.onlyChangedBy(uid); err != nil {
			return fmt.Errorf("uid %d, but %w: if you mean that one, run crankctl as uid %d", uid, err, uid)
		}
	}
	if link, owner := trail.foreignLink(own, uid); link != "" {
		return fmt.Errorf("uid %d, but %s is a symbolic link of uid %d: use the path that it leads to", uid, link, owner)
	}
	return nil
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
