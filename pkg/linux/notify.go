package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// Credentials is who sent a datagram, as the kernel saw it: numbers of the receiver's namespaces.
// PID is 0 where the sender has none there.
type Credentials struct{ PID, UID, GID int }

// CredentialsOOB is the room that Datagram.OOB needs for the credentials and the largest number of
// descriptors that one message can carry (SCM_MAX_FD, unix(7)).
const CredentialsOOB = 2048

// CredentialsSocket opens a non-blocking unix datagram socket that tells who sends, and binds it to
// address, a path or "@name" (abstract). The caller closes it and removes the path.
func CredentialsSocket(address string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// Before bind: the kernel attaches credentials when a message is sent, not when it is read.
	if err = passCredentials(fd); err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: address}))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// CredentialsPair opens a pair of unix datagram sockets. receive is non-blocking and tells who sends;
// send is blocking, as a program expects of a descriptor that it was given. Both are close-on-exec and
// the caller's to close.
func CredentialsPair() (receive, send int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err = passCredentials(pair[0]); err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(pair[0], true))
	}
	if err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return -1, -1, err
	}
	return pair[0], pair[1], nil
}

func passCredentials(fd int) error {
	return os.NewSyscallError("setsockopt SO_PASSCRED", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
}

// Datagram is one received message.
type Datagram struct {
	Data, OOB   []byte // the caller's room for ReceiveDatagram
	N           int    // bytes of Data that were filled
	Truncated   bool   // it was longer than Data
	Sender      Credentials
	Descriptors []int // close-on-exec, the caller's to close
}

// ReceiveDatagram reads one message into d, without waiting on a non-blocking socket: then the error
// is EAGAIN. Descriptors for which there was no room in d.OOB or in the process are closed by the kernel.
func ReceiveDatagram(fd int, d *Datagram) error {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, d.Data, d.OOB, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		d.N, d.Truncated = n, flags&unix.MSG_TRUNC != 0
		d.Sender, d.Descriptors = parseControl(d.OOB[:oobn])
		return nil
	}
}

// parseControl takes what is well-formed: a truncated last message must not make the descriptors
// before it leak.
func parseControl(oob []byte) (who Credentials, fds []int) {
	for len(oob) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return who, fds
		}
		m := unix.SocketControlMessage{Header: header, Data: data}
		switch {
		case header.Level != unix.SOL_SOCKET:
		case header.Type == unix.SCM_CREDENTIALS && len(data) >= unix.SizeofUcred:
			if c, err := unix.ParseUnixCredentials(&m); err == nil {
				who = Credentials{PID: int(c.Pid), UID: int(c.Uid), GID: int(c.Gid)}
			}
		case header.Type == unix.SCM_RIGHTS:
			m.Data = data[:len(data)&^3] // ParseUnixRights panics on a part of a descriptor, which no kernel has sent so far
			if more, err := unix.ParseUnixRights(&m); err == nil {
				fds = append(fds, more...)
			}
		}
		oob = rest
	}
	return who, fds
}

// CloseReceived closes a descriptor that another process sent. It first clears SO_LINGER (socket(7)), which would make close(2) wait
// for the socket's peer. Other files may still make it wait, and so may sockets in the queue of this one.
func CloseReceived(fd int) {
	if linger, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER); err == nil && linger != 0 { // l_onoff is the first field
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	_ = unix.Close(fd)
}
