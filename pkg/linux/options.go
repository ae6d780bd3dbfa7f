package linux

import (
	"bytes"
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SharedOption is an option of a socket that another process may change which holds the same socket: it belongs to the
// socket and not to a descriptor, and outlives the process that has set it.
type SharedOption struct {
	SocketOption
	Undo Undo
	Note string // for people: what it does to the others, or why it cannot be undone
}

// Undo says whether a change of an option can be undone.
type Undo int

// The values of Undo.
const (
	Reversible Undo = iota // it can be read and put back
	Refused                // it can be read, but the kernel may refuse to put it back, or does so without a capability
	Unseen                 // it cannot be read
)

// String is for people.
func (u Undo) String() string { return [...]string{"put back", "reported", "not seen"}[u] }

// Name is the option's name in the headers of the kernel.
func (o SocketOption) Name() string { return o.name }

// Number is what setsockopt(2) calls it.
func (o SocketOption) Number() (level, opt int) { return o.level, o.opt }

func so(name string, opt int, undo Undo, note string) SharedOption {
	return SharedOption{SocketOption{name, unix.SOL_SOCKET, opt}, undo, note}
}

func ipo(name string, opt int, undo Undo, note string) SharedOption {
	return SharedOption{SocketOption{name, unix.IPPROTO_IP, opt}, undo, note}
}

func ip6o(name string, opt int, undo Undo, note string) SharedOption {
	return SharedOption{SocketOption{name, unix.IPPROTO_IPV6, opt}, undo, note}
}

func tcpo(name string, opt int, undo Undo, note string) SharedOption {
	return SharedOption{SocketOption{name, unix.IPPROTO_TCP, opt}, undo, note}
}

func udpo(name string, opt int, note string) SharedOption {
	return SharedOption{SocketOption{name, unix.IPPROTO_UDP, opt}, Reversible, note}
}

// SharedOptions are all options that somebody can change on a socket that is bound, as of Linux 6.18: socket(7), ip(7), ipv6(7),
// tcp(7), udp(7), unix(7) and the headers in include/uapi. The sizes of the buffers come before SO_BUF_LOCK, which setting
// them changes; SO_LOCK_FILTER is tried before the filter.
var SharedOptions = []SharedOption{
	so("SO_DEBUG", unix.SO_DEBUG, Reversible, ""),
	so("SO_REUSEADDR", unix.SO_REUSEADDR, Reversible, "lets others bind the port"),
	so("SO_REUSEPORT", unix.SO_REUSEPORT, Reversible, "lets the same user bind the port"),
	so("SO_DONTROUTE", unix.SO_DONTROUTE, Reversible, ""),
	so("SO_BROADCAST", unix.SO_BROADCAST, Reversible, ""),
	so("SO_SNDBUF", unix.SO_SNDBUF, Reversible, "new connections have it too"),
	so("SO_RCVBUF", unix.SO_RCVBUF, Reversible, "new connections have it too"),
	so("SO_RCVLOWAT", unix.SO_RCVLOWAT, Reversible, "new connections have it too"),
	so("SO_BUF_LOCK", unix.SO_BUF_LOCK, Reversible, "whether the kernel may adapt the buffers; since Linux 5.14"),
	so("SO_KEEPALIVE", unix.SO_KEEPALIVE, Reversible, "new connections have it too"),
	so("SO_OOBINLINE", unix.SO_OOBINLINE, Reversible, "new connections have it too"),
	so("SO_NO_CHECK", unix.SO_NO_CHECK, Reversible, ""),
	so("SO_PRIORITY", unix.SO_PRIORITY, Reversible, "above 6 it needs CAP_NET_ADMIN, also to be put back"),
	so("SO_LINGER", unix.SO_LINGER, Reversible, "new connections have it too: close resets them, or blocks"),
	so("SO_PASSCRED", unix.SO_PASSCRED, Reversible, ""),
	so("SO_PASSSEC", unix.SO_PASSSEC, Reversible, ""),
	so("SO_PASSPIDFD", unix.SO_PASSPIDFD, Reversible, ""),
	so("SO_PASSRIGHTS", unix.SO_PASSRIGHTS, Reversible, "without it a message with a descriptor is refused"),
	so("SO_RCVTIMEO", unix.SO_RCVTIMEO, Reversible, "accept(2) has it as well"),
	so("SO_SNDTIMEO", unix.SO_SNDTIMEO, Reversible, ""),
	so("SO_TIMESTAMP", unix.SO_TIMESTAMP_OLD, Reversible, ""),
	so("SO_TIMESTAMPNS", unix.SO_TIMESTAMPNS_OLD, Reversible, ""),
	so("SO_TIMESTAMP_NEW", unix.SO_TIMESTAMP_NEW, Reversible, ""),
	so("SO_TIMESTAMPNS_NEW", unix.SO_TIMESTAMPNS_NEW, Reversible, ""),
	so("SO_TIMESTAMPING", unix.SO_TIMESTAMPING_OLD, Reversible, ""),
	so("SO_MARK", unix.SO_MARK, Refused, "needs CAP_NET_ADMIN, or CAP_NET_RAW"),
	so("SO_RCVMARK", unix.SO_RCVMARK, Reversible, ""),
	so("SO_RCVPRIORITY", unix.SO_RCVPRIORITY, Reversible, ""),
	so("SO_RXQ_OVFL", unix.SO_RXQ_OVFL, Reversible, ""),
	so("SO_WIFI_STATUS", unix.SO_WIFI_STATUS, Reversible, ""),
	so("SO_PEEK_OFF", unix.SO_PEEK_OFF, Reversible, "reads of others skip data"),
	so("SO_NOFCS", unix.SO_NOFCS, Reversible, ""),
	so("SO_SELECT_ERR_QUEUE", unix.SO_SELECT_ERR_QUEUE, Reversible, ""),
	so("SO_BUSY_POLL", unix.SO_BUSY_POLL, Refused, "to raise it needs CAP_NET_ADMIN"),
	so("SO_PREFER_BUSY_POLL", unix.SO_PREFER_BUSY_POLL, Refused, "to set it needs CAP_NET_ADMIN"),
	so("SO_MAX_PACING_RATE", unix.SO_MAX_PACING_RATE, Reversible, "new connections have it too"),
	so("SO_INCOMING_CPU", unix.SO_INCOMING_CPU, Reversible, ""),
	so("SO_ZEROCOPY", unix.SO_ZEROCOPY, Reversible, ""),
	so("SO_TXTIME", unix.SO_TXTIME, Refused, "needs CAP_NET_ADMIN"),
	so("SO_TXREHASH", unix.SO_TXREHASH, Reversible, ""),
	so("SO_RESERVE_MEM", unix.SO_RESERVE_MEM, Refused, "can only grow"),
	so("SO_BINDTODEVICE", unix.SO_BINDTOIFINDEX, Refused, "undoing it needs CAP_NET_RAW; clients on other interfaces cannot connect (SO_BINDTOIFINDEX is the same)"),
	so("SO_LOCK_FILTER", unix.SO_LOCK_FILTER, Refused, "nobody can undo it: a filter stays"),

	so("SO_CNX_ADVICE", unix.SO_CNX_ADVICE, Unseen, "no effect on a socket without a peer"),
	so("SO_BUSY_POLL_BUDGET", unix.SO_BUSY_POLL_BUDGET, Unseen, "no effect but on speed"),
	so("SO_DETACH_REUSEPORT_BPF", unix.SO_DETACH_REUSEPORT_BPF, Unseen, "a program of the app's own for sockets that share a port is gone"),
	so("SO_ATTACH_REUSEPORT_CBPF", unix.SO_ATTACH_REUSEPORT_CBPF, Unseen, "who of those that share a port by reuseport is chosen"),
	so("SO_ATTACH_REUSEPORT_EBPF", unix.SO_ATTACH_REUSEPORT_EBPF, Unseen, "the same"),
	so("SO_INQ", unix.SO_INQ, Unseen, "no effect but on what recvmsg(2) tells"),
	so("SO_DEVMEM_DONTNEED", unix.SO_DEVMEM_DONTNEED, Unseen, "no effect on a socket without a peer"),

	ipo("IP_TOS", unix.IP_TOS, Reversible, "new connections have it too"),
	ipo("IP_TTL", unix.IP_TTL, Reversible, "with 1 no answer leaves the network"),
	ipo("IP_MINTTL", unix.IP_MINTTL, Reversible, "with 255 clients behind a router cannot connect"),
	ipo("IP_OPTIONS", unix.IP_OPTIONS, Reversible, "new connections have them too"),
	ipo("IP_RECVOPTS", unix.IP_RECVOPTS, Reversible, ""),
	ipo("IP_RETOPTS", unix.IP_RETOPTS, Reversible, ""),
	ipo("IP_PKTINFO", unix.IP_PKTINFO, Reversible, ""),
	ipo("IP_MTU_DISCOVER", unix.IP_MTU_DISCOVER, Reversible, ""),
	ipo("IP_RECVERR", unix.IP_RECVERR, Reversible, ""),
	ipo("IP_RECVERR_RFC4884", unix.IP_RECVERR_RFC4884, Reversible, ""),
	ipo("IP_RECVTTL", unix.IP_RECVTTL, Reversible, ""),
	ipo("IP_RECVTOS", unix.IP_RECVTOS, Reversible, ""),
	ipo("IP_FREEBIND", unix.IP_FREEBIND, Reversible, ""),
	ipo("IP_PASSSEC", unix.IP_PASSSEC, Reversible, ""),
	ipo("IP_TRANSPARENT", unix.IP_TRANSPARENT, Refused, "to set it needs CAP_NET_ADMIN"),
	ipo("IP_RECVORIGDSTADDR", unix.IP_RECVORIGDSTADDR, Reversible, ""),
	ipo("IP_CHECKSUM", unix.IP_CHECKSUM, Reversible, ""),
	ipo("IP_BIND_ADDRESS_NO_PORT", unix.IP_BIND_ADDRESS_NO_PORT, Reversible, ""),
	ipo("IP_RECVFRAGSIZE", unix.IP_RECVFRAGSIZE, Reversible, ""),
	ipo("IP_MULTICAST_IF", unix.IP_MULTICAST_IF, Reversible, ""),
	ipo("IP_MULTICAST_TTL", unix.IP_MULTICAST_TTL, Reversible, ""),
	ipo("IP_MULTICAST_LOOP", unix.IP_MULTICAST_LOOP, Reversible, ""),
	ipo("IP_MULTICAST_ALL", unix.IP_MULTICAST_ALL, Reversible, ""),
	ipo("IP_UNICAST_IF", unix.IP_UNICAST_IF, Reversible, ""),
	ipo("IP_LOCAL_PORT_RANGE", unix.IP_LOCAL_PORT_RANGE, Reversible, ""),
	ipo("IP_XFRM_POLICY", unix.IP_XFRM_POLICY, Unseen, "needs CAP_NET_ADMIN; IP_IPSEC_POLICY and IPV6_XFRM_POLICY are like it"),
	ipo("IP_ADD_MEMBERSHIP", unix.IP_ADD_MEMBERSHIP, Unseen, "a multicast group that was joined or left, with the sources that were blocked in it"),

	ip6o("IPV6_UNICAST_HOPS", unix.IPV6_UNICAST_HOPS, Reversible, "with 1 no answer leaves the network"),
	ip6o("IPV6_MINHOPCOUNT", unix.IPV6_MINHOPCOUNT, Reversible, "with 255 clients behind a router cannot connect"),
	ip6o("IPV6_TCLASS", unix.IPV6_TCLASS, Reversible, "new connections have it too"),
	ip6o("IPV6_ADDR_PREFERENCES", unix.IPV6_ADDR_PREFERENCES, Reversible, ""),
	ip6o("IPV6_AUTOFLOWLABEL", unix.IPV6_AUTOFLOWLABEL, Reversible, ""),
	ip6o("IPV6_FLOWINFO_SEND", 33, Reversible, ""), // include/uapi/linux/in6.h
	ip6o("IPV6_FLOWINFO", 11, Reversible, ""),
	ip6o("IPV6_MTU_DISCOVER", unix.IPV6_MTU_DISCOVER, Reversible, ""),
	ip6o("IPV6_DONTFRAG", unix.IPV6_DONTFRAG, Reversible, ""),
	ip6o("IPV6_FREEBIND", unix.IPV6_FREEBIND, Reversible, ""),
	ip6o("IPV6_TRANSPARENT", unix.IPV6_TRANSPARENT, Refused, "to set it needs CAP_NET_ADMIN"),
	ip6o("IPV6_MULTICAST_IF", unix.IPV6_MULTICAST_IF, Reversible, ""),
	ip6o("IPV6_MULTICAST_HOPS", unix.IPV6_MULTICAST_HOPS, Reversible, ""),
	ip6o("IPV6_MULTICAST_LOOP", unix.IPV6_MULTICAST_LOOP, Reversible, ""),
	ip6o("IPV6_MULTICAST_ALL", unix.IPV6_MULTICAST_ALL, Reversible, ""),
	ip6o("IPV6_UNICAST_IF", unix.IPV6_UNICAST_IF, Reversible, ""),
	ip6o("IPV6_RECVERR", unix.IPV6_RECVERR, Reversible, ""),
	ip6o("IPV6_RECVERR_RFC4884", unix.IPV6_RECVERR_RFC4884, Reversible, ""),
	ip6o("IPV6_RECVPKTINFO", unix.IPV6_RECVPKTINFO, Reversible, ""),
	ip6o("IPV6_RECVHOPLIMIT", unix.IPV6_RECVHOPLIMIT, Reversible, ""),
	ip6o("IPV6_RECVHOPOPTS", unix.IPV6_RECVHOPOPTS, Reversible, ""),
	ip6o("IPV6_RECVRTHDR", unix.IPV6_RECVRTHDR, Reversible, ""),
	ip6o("IPV6_RECVDSTOPTS", unix.IPV6_RECVDSTOPTS, Reversible, ""),
	ip6o("IPV6_RECVPATHMTU", unix.IPV6_RECVPATHMTU, Reversible, ""),
	ip6o("IPV6_RECVTCLASS", unix.IPV6_RECVTCLASS, Reversible, ""),
	ip6o("IPV6_RECVORIGDSTADDR", unix.IPV6_RECVORIGDSTADDR, Reversible, ""),
	ip6o("IPV6_ROUTER_ALERT_ISOLATE", unix.IPV6_ROUTER_ALERT_ISOLATE, Reversible, ""),
	ip6o("IPV6_RECVFRAGSIZE", unix.IPV6_RECVFRAGSIZE, Reversible, ""),
	ip6o("IPV6_2292PKTINFO", unix.IPV6_2292PKTINFO, Reversible, ""),
	ip6o("IPV6_2292HOPOPTS", unix.IPV6_2292HOPOPTS, Reversible, ""),
	ip6o("IPV6_2292DSTOPTS", unix.IPV6_2292DSTOPTS, Reversible, ""),
	ip6o("IPV6_2292RTHDR", unix.IPV6_2292RTHDR, Reversible, ""),
	ip6o("IPV6_2292HOPLIMIT", unix.IPV6_2292HOPLIMIT, Reversible, ""),
	ip6o("IPV6_HOPOPTS", unix.IPV6_HOPOPTS, Refused, "needs CAP_NET_RAW"),
	ip6o("IPV6_RTHDRDSTOPTS", unix.IPV6_RTHDRDSTOPTS, Refused, "needs CAP_NET_RAW"),
	ip6o("IPV6_DSTOPTS", unix.IPV6_DSTOPTS, Refused, "needs CAP_NET_RAW"),
	ip6o("IPV6_RTHDR", unix.IPV6_RTHDR, Reversible, "new connections have it too"),
	ip6o("IPV6_ADDRFORM", unix.IPV6_ADDRFORM, Refused, "an IPv6 socket for datagrams is one of IPv4 for good; seen by SO_DOMAIN"),
	ip6o("IPV6_MTU", unix.IPV6_MTU, Unseen, "datagrams are fragmented to that size"),
	ip6o("IPV6_2292PKTOPTIONS", unix.IPV6_2292PKTOPTIONS, Unseen, "what is sent along with each packet"),
	ip6o("IPV6_PKTINFO", unix.IPV6_PKTINFO, Unseen, "the source address of what is sent"),
	ip6o("IPV6_FLOWLABEL_MGR", 32, Unseen, "labels of packets that are sent"),
	ip6o("IPV6_JOIN_GROUP", unix.IPV6_JOIN_GROUP, Unseen, "a multicast group that was joined or left; IPV6_JOIN_ANYCAST is like it"),

	tcpo("TCP_NODELAY", unix.TCP_NODELAY, Reversible, "new connections have it too"),
	tcpo("TCP_MAXSEG", unix.TCP_MAXSEG, Reversible, "new connections have it too"),
	tcpo("TCP_CORK", unix.TCP_CORK, Reversible, "new connections have it too: answers are held back"),
	tcpo("TCP_KEEPIDLE", unix.TCP_KEEPIDLE, Reversible, "new connections have it too"),
	tcpo("TCP_KEEPINTVL", unix.TCP_KEEPINTVL, Reversible, "new connections have it too"),
	tcpo("TCP_KEEPCNT", unix.TCP_KEEPCNT, Reversible, "new connections have it too"),
	tcpo("TCP_SYNCNT", unix.TCP_SYNCNT, Reversible, ""),
	tcpo("TCP_LINGER2", unix.TCP_LINGER2, Reversible, "new connections have it too"),
	tcpo("TCP_DEFER_ACCEPT", unix.TCP_DEFER_ACCEPT, Reversible, "connections are accepted only once the client has sent data"),
	tcpo("TCP_WINDOW_CLAMP", unix.TCP_WINDOW_CLAMP, Reversible, "new connections have it too; not to 0, but to the largest window there is"),
	tcpo("TCP_QUICKACK", unix.TCP_QUICKACK, Reversible, ""),
	tcpo("TCP_CONGESTION", unix.TCP_CONGESTION, Reversible, "new connections have it too"),
	tcpo("TCP_THIN_LINEAR_TIMEOUTS", unix.TCP_THIN_LINEAR_TIMEOUTS, Reversible, ""),
	tcpo("TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, Reversible, "new connections have it too: they end early"),
	tcpo("TCP_FASTOPEN", unix.TCP_FASTOPEN, Reversible, ""),
	tcpo("TCP_FASTOPEN_NO_COOKIE", unix.TCP_FASTOPEN_NO_COOKIE, Reversible, ""),
	tcpo("TCP_NOTSENT_LOWAT", unix.TCP_NOTSENT_LOWAT, Reversible, "new connections have it too"),
	tcpo("TCP_SAVE_SYN", unix.TCP_SAVE_SYN, Reversible, ""),
	tcpo("TCP_INQ", unix.TCP_INQ, Reversible, ""),
	tcpo("TCP_TX_DELAY", unix.TCP_TX_DELAY, Reversible, "new connections have it too: every answer is late"),
	tcpo("TCP_RTO_MAX_MS", unix.TCP_RTO_MAX_MS, Reversible, "new connections have it too"),
	tcpo("TCP_RTO_MIN_US", unix.TCP_RTO_MIN_US, Reversible, "new connections have it too"),
	tcpo("TCP_DELACK_MAX_US", unix.TCP_DELACK_MAX_US, Reversible, "new connections have it too"),
	tcpo("TCP_FASTOPEN_KEY", unix.TCP_FASTOPEN_KEY, Refused, "one that was set cannot be taken away, only be replaced"),
	tcpo("TCP_MD5SIG_EXT", unix.TCP_MD5SIG_EXT, Unseen, "clients without the key cannot connect; deleting it works, but only with the address that it was added for (TCP_MD5SIG and TCP_AO_ADD_KEY are like it)"),

	udpo("UDP_CORK", unix.UDP_CORK, "answers are held back"),
	udpo("UDP_ENCAP", unix.UDP_ENCAP, "datagrams are taken for IPsec or L2TP"),
	udpo("UDP_NO_CHECK6_TX", unix.UDP_NO_CHECK6_TX, ""),
	udpo("UDP_NO_CHECK6_RX", unix.UDP_NO_CHECK6_RX, ""),
	udpo("UDP_SEGMENT", unix.UDP_SEGMENT, "answers are cut into pieces"),
	udpo("UDP_GRO", unix.UDP_GRO, "datagrams are joined"),
}

// maxOption is more than the value of any of them has in bytes.
const maxOption = 256

// Has reports whether a socket of this domain and protocol (SO_DOMAIN, SO_PROTOCOL) can have the option. An IPv6 socket has those of
// IPv4 too, for clients of IPv4.
func (o SocketOption) Has(domain, protocol int) bool {
	switch o.level {
	case unix.IPPROTO_IP:
		return domain == unix.AF_INET || domain == unix.AF_INET6
	case unix.IPPROTO_IPV6:
		return domain == unix.AF_INET6
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		return o.level == protocol
	}
	return true
}

// Value reads an option as the kernel has it in memory.
func (o SocketOption) Value(fd int) ([]byte, error) {
	value := make([]byte, maxOption)
	n, err := getsockopt(fd, o.level, o.opt, value)
	return value[:n], os.NewSyscallError("getsockopt "+o.name, err)
}

// PutBack sets what Value has read.
func (o SocketOption) PutBack(fd int, value []byte) error {
	if o.level == unix.SOL_SOCKET && (o.opt == unix.SO_RCVBUF || o.opt == unix.SO_SNDBUF) {
		return o.putBackBuffer(fd, value)
	}
	if o.level == unix.SOL_SOCKET && o.opt == unix.SO_LINGER && number(value) == 0 {
		// The kernel takes the time only together with "on".
		on := bytes.Clone(value)
		binary.NativeEndian.PutUint32(on, 1)
		if err := o.set(fd, on); err != nil {
			return err
		}
	}
	if o.level == unix.IPPROTO_TCP {
		switch {
		case o.opt == unix.TCP_WINDOW_CLAMP && number(value) == 0:
			value = bytesOf(noWindowClamp) // a listener refuses 0
		case o.opt == unix.TCP_MAXSEG && noMaxSeg(value):
			value = bytesOf(0)
		}
	}
	return o.set(fd, value)
}

// noWindowClamp is what a connection has where none was set (tcp_select_initial_window in net/ipv4/tcp_output.c).
const noWindowClamp = 0xffff << 14

// noMaxSeg reports whether no size was set: a listener shows then what it has computed itself, by what there is in IP_OPTIONS.
func noMaxSeg(value []byte) bool {
	const smallest = 88 // that can be set: TCP_MIN_MSS of include/net/tcp.h
	return number(value) == unix.TCP_MSS_DEFAULT || number(value) < smallest
}

// Settles reports whether an option with this value is as it was once PutBack has succeeded, whatever Value returns then: TCP_MAXSEG of a
// listener that was a client for a while shows what that had computed.
func (o SocketOption) Settles(was []byte) bool {
	return o.level == unix.IPPROTO_TCP && o.opt == unix.TCP_MAXSEG && noMaxSeg(was)
}

// putBackBuffer: the kernel doubles what it is given (socket(7)), and the administrator's limit holds for those without a capability.
func (o SocketOption) putBackBuffer(fd int, value []byte) error {
	half := bytesOf(number(value) / 2)
	force := SocketOption{o.name + "FORCE", o.level, unix.SO_RCVBUFFORCE}
	if o.opt == unix.SO_SNDBUF {
		force.opt = unix.SO_SNDBUFFORCE
	}
	if force.set(fd, half) == nil {
		return nil
	}
	return o.set(fd, half)
}

// Same reports whether two values mean the same.
func (o SocketOption) Same(a, b []byte) bool {
	switch {
	case o.level == unix.SOL_SOCKET && o.opt == unix.SO_LINGER:
		return bytes.Equal(a, b) || number(a) == 0 && number(b) == 0
	case o.level == unix.IPPROTO_TCP && o.opt == unix.TCP_WINDOW_CLAMP:
		none := func(value []byte) bool { return number(value) == 0 || number(value) == noWindowClamp }
		return bytes.Equal(a, b) || none(a) && none(b)
	case o.level == unix.IPPROTO_TCP && o.opt == unix.TCP_MAXSEG:
		return bytes.Equal(a, b) || noMaxSeg(a) && noMaxSeg(b)
	}
	return bytes.Equal(a, b)
}

func (o SocketOption) set(fd int, value []byte) error {
	return os.NewSyscallError("setsockopt "+o.name, setsockopt(fd, o.level, o.opt, value))
}

// number reads an int; 0 where there is none.
func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

func bytesOf(number uint32) []byte { return binary.NativeEndian.AppendUint32(nil, number) }

// getsockopt reads into value, and returns how long it is.
func getsockopt(fd, level, opt int, value []byte) (int, error) {
	n := uint32(len(value))
	var at unsafe.Pointer
	if len(value) > 0 {
		at = unsafe.Pointer(&value[0])
	}
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(at), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func setsockopt(fd, level, opt int, value []byte) error {
	var at unsafe.Pointer
	if len(value) > 0 {
		at = unsafe.Pointer(&value[0])
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(at), uintptr(len(value)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// filterInstruction is the length of a struct sock_filter.
const filterInstruction = 8

// Filter reads the filter of a socket, of classic BPF, as it was attached (SO_GET_FILTER, socket(7)); nil where there is none. One of eBPF
// cannot be read: EACCES.
func Filter(fd int) ([]byte, error) {
	instructions, err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil) // it counts instructions, not bytes
	if err != nil || instructions == 0 {
		return nil, os.NewSyscallError("getsockopt SO_GET_FILTER", err)
	}
	n := uint32(instructions)
	filter := make([]byte, instructions*filterInstruction)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&filter[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("getsockopt SO_GET_FILTER", errno)
	}
	return filter, nil
}

// SetFilter attaches a filter that Filter has read, in the place of another; nil detaches.
func SetFilter(fd int, filter []byte) error {
	if len(filter) == 0 {
		return os.NewSyscallError("setsockopt SO_DETACH_FILTER", setsockopt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, bytesOf(0)))
	}
	program := unix.SockFprog{Len: uint16(len(filter) / filterInstruction), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}
