package linux

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// SocketOption is an integer option of a socket.
type SocketOption struct {
	name       string
	level, opt int
}

// The options that crank sets or reads: socket(7), ip(7), ipv6(7), tcp(7).
var (
	SocketDomain   = SocketOption{"SO_DOMAIN", unix.SOL_SOCKET, unix.SO_DOMAIN}
	SocketType     = SocketOption{"SO_TYPE", unix.SOL_SOCKET, unix.SO_TYPE}
	SocketProtocol = SocketOption{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL}
	AcceptConn     = SocketOption{"SO_ACCEPTCONN", unix.SOL_SOCKET, unix.SO_ACCEPTCONN}
	BoundDevice    = SocketOption{"SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX}
	ReuseAddr      = SocketOption{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR}
	ReusePort      = SocketOption{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT}
	Repair         = SocketOption{"TCP_REPAIR", unix.IPPROTO_TCP, unix.TCP_REPAIR}
	V6Only         = SocketOption{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}
	DeferAccept    = SocketOption{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}
)

// RepairOff is a value of Repair: off, without asking the peer for its window.
const RepairOff = unix.TCP_REPAIR_OFF_NO_WP

// tcpListen is TCP_LISTEN of include/net/tcp_states.h.
const tcpListen = 10

// Socket opens a close-on-exec socket of the domain's default protocol: TCP for a stream, never
// MPTCP. Flags such as SOCK_NONBLOCK are or-ed to kind. The caller closes it.
func Socket(domain, kind int) (fd int, err error) {
	fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}

// SetOption sets an option of a socket.
func SetOption(fd int, option SocketOption, value int) error {
	return os.NewSyscallError("setsockopt "+option.name, unix.SetsockoptInt(fd, option.level, option.opt, value))
}

// Option reads an option of a socket: EBADF where fd is not open, ENOTSOCK where it is no socket.
func Option(fd int, option SocketOption) (int, error) {
	value, err := unix.GetsockoptInt(fd, option.level, option.opt)
	return value, os.NewSyscallError("getsockopt "+option.name, err)
}

// BindInet binds a socket of the address's family. A zone is an interface's name or its index.
func BindInet(fd int, address netip.AddrPort) error {
	var to unix.Sockaddr
	if ip := address.Addr(); ip.Is4() {
		to = &unix.SockaddrInet4{Addr: ip.As4(), Port: int(address.Port())}
	} else {
		zone, err := zoneIndex(ip.Zone())
		if err != nil {
			return err
		}
		to = &unix.SockaddrInet6{Addr: ip.As16(), Port: int(address.Port()), ZoneId: zone}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, to))
}

func zoneIndex(zone string) (uint32, error) {
	if index, err := strconv.ParseUint(zone, 10, 32); zone == "" || err == nil {
		return uint32(index), nil
	}
	link, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(link.Index), nil
}

// BindUnix binds a unix socket to a path or "@name" (abstract). The file's mode is that of the
// unbound socket's inode less the umask, its owner the process: see unix_bind_bsd in
// net/unix/af_unix.c.
func BindUnix(fd int, name string) error {
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: name}))
}

// ConnectUnix connects a unix socket to a path or "@name" (abstract).
func ConnectUnix(fd int, name string) error {
	err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: name}) })
	return os.NewSyscallError("connect", err)
}

// Listen makes a stream or packet socket accept connections, or changes the limit of its queue.
func Listen(fd, backlog int) error {
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// Listens reports whether a socket accepts connections.
func Listens(fd int) (bool, error) {
	listens, err := Option(fd, AcceptConn)
	return listens != 0, err
}

// SocketName returns what a socket is bound to: an address and port, or name for a unix socket (a
// path, "@name", "" where it has none). Both are zero for any other family.
func SocketName(fd int) (inet netip.AddrPort, name string, err error) {
	bound, err := unix.Getsockname(fd)
	if errors.Is(err, unix.EAFNOSUPPORT) { // a family that x/sys does not decode
		return netip.AddrPort{}, "", nil
	}
	switch at := bound.(type) {
	case *unix.SockaddrInet4:
		inet = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(at.Addr)
		if at.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(at.ZoneId), 10))
		}
		inet = netip.AddrPortFrom(ip, uint16(at.Port))
	case *unix.SockaddrUnix:
		if at.Name != "@" { // how x/sys decodes the address of an unnamed socket
			name = at.Name
		}
	}
	return inet, name, os.NewSyscallError("getsockname", err)
}

// ListenQueue returns how many connections of a TCP listener wait to be accepted, and how many may.
// For a listener the kernel keeps both in fields of TCP_INFO that are named otherwise
// (tcp_get_info in net/ipv4/tcp.c). listening is false for a TCP socket that does not listen.
func ListenQueue(fd int) (length, limit uint32, listening bool, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, false, os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	if info.State != tcpListen {
		return 0, 0, false, nil
	}
	return info.Unacked, info.Sacked, true, nil
}

// DuplicateFrom returns a close-on-exec duplicate, at or above lowest, of an open descriptor. Both
// share the file status flags, O_NONBLOCK too.
func DuplicateFrom(fd, lowest int) (int, error) {
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowest)
	return duplicate, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
}

// CloseOnExec marks a descriptor, and no other descriptor of the same file.
func CloseOnExec(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	return os.NewSyscallError("fcntl F_SETFD", err)
}

// SetSocketMode sets the mode that the file of an unbound unix socket will have (see BindUnix).
func SetSocketMode(fd int, mode fs.FileMode) error {
	err := retry(func() error { return unix.Fchmod(fd, uint32(mode.Perm())) })
	return os.NewSyscallError("fchmod", err)
}

// OpenSocketFile opens the file of a unix socket without its contents, and without following a link there (O_PATH of
// open(2)). Whatever else somebody may have put in its place is an error, ENOTSOCK. The caller closes it.
func OpenSocketFile(path string) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = unix.ENOTSOCK
	}
	if err != nil {
		Close(fd)
		return -1, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fd, nil
}

// RemoveAt removes a name, which is no directory, from an open directory, wherever that is by now.
func RemoveAt(dir *os.File, name string) error {
	// A descriptor of a directory is never non-blocking: Fd has no side effect here.
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
		return &fs.PathError{Op: "unlinkat", Path: dir.Name() + "/" + name, Err: err}
	}
	return nil
}

// ChownOpened changes the owner of what OpenSocketFile opened; -1 leaves one as it is.
func ChownOpened(fd, uid, gid int) error {
	err := retry(func() error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) })
	return os.NewSyscallError("fchownat", err)
}

// ChmodOpened changes the mode of what OpenSocketFile opened. fchmod refuses such a descriptor; fchmodat2 takes it, since Linux
// 6.6 and where a seccomp profile knows it. Otherwise it needs /proc.
func ChmodOpened(fd int, mode fs.FileMode) error {
	err := retry(func() error { return unix.Fchmodat(fd, "", uint32(mode.Perm()), unix.AT_EMPTY_PATH) })
	if err == nil {
		return nil
	}
	return os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode.Perm())
}

// NextDatagram returns how many bytes of the first datagram wait to be read (FIONREAD, udp(7)).
func NextDatagram(fd int) (bytes int, err error) {
	bytes, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
	return bytes, os.NewSyscallError("ioctl FIONREAD", err)
}
