package linux

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SharedOption is an option that any process holding the socket can change for all of them: it belongs to the socket, not to a
// descriptor, and outlives the process that set it.
type SharedOption struct {
	SocketOption
	Undo Undo
	Note string // for the documentation: how a change affects others, or why it cannot be undone
}

// Undo says whether a change of an option can be undone.
type Undo int

// The values of Undo.
const (
	Reversible Undo = iota // it can be read and put back
	Refused                // it can be read, but the kernel may refuse to put it back
	Unseen                 // it cannot be read
)

// String returns the wording of docs/sockets.md.
func (u Undo) String() string { return [...]string{"put back", "reported", "not seen"}[u] }

// Name is the option's name in the headers of the kernel.
func (o SocketOption) Name() string { return o.name }

// Number is what setsockopt(2) calls it.
func (o SocketOption) Number() (level, opt int) { return o.level, o.opt }

// row is a SharedOption without its level.
type row struct {
	name string
	opt  int
	undo Undo
	note string
}

func options(level int, rows []row) []SharedOption {
	all := make([]SharedOption, len(rows))
	for i, r := range rows {
		all[i] = SharedOption{SocketOption{r.name, level, r.opt}, r.undo, r.note}
	}
	return all
}

// SharedOptions lists every option that can be changed on a bound socket, as of Linux 6.18: socket(7), ip(7), ipv6(7), tcp(7),
// udp(7), unix(7) and the headers in include/uapi. They are put back in this order: the sizes of the buffers before SO_BUF_LOCK, which
// setting them changes.
var SharedOptions = slices.Concat(
	options(unix.SOL_SOCKET, []row{
		{"SO_DEBUG", unix.SO_DEBUG, Reversible, ""},
		{"SO_REUSEADDR", unix.SO_REUSEADDR, Reversible, "lets other sockets bind the port"},
		{"SO_REUSEPORT", unix.SO_REUSEPORT, Reversible, "lets the same user bind the port"},
		{"SO_DONTROUTE", unix.SO_DONTROUTE, Reversible, ""},
		{"SO_BROADCAST", unix.SO_BROADCAST, Reversible, ""},
		{"SO_SNDBUF", unix.SO_SNDBUF, Reversible, "inherited by new connections"},
		{"SO_RCVBUF", unix.SO_RCVBUF, Reversible, "inherited by new connections"},
		{"SO_RCVLOWAT", unix.SO_RCVLOWAT, Reversible, "inherited by new connections"},
		{"SO_BUF_LOCK", unix.SO_BUF_LOCK, Reversible, "whether the kernel may adapt the buffers; since Linux 5.14"},
		{"SO_KEEPALIVE", unix.SO_KEEPALIVE, Reversible, "inherited by new connections"},
		{"SO_OOBINLINE", unix.SO_OOBINLINE, Reversible, "inherited by new connections"},
		{"SO_NO_CHECK", unix.SO_NO_CHECK, Reversible, ""},
		{"SO_PRIORITY", unix.SO_PRIORITY, Reversible, "values above 6 need CAP_NET_ADMIN, also to be put back"},
		{"SO_LINGER", unix.SO_LINGER, Reversible, "inherited by new connections: close resets them, or blocks"},
		{"SO_PASSCRED", unix.SO_PASSCRED, Reversible, ""},
		{"SO_PASSSEC", unix.SO_PASSSEC, Reversible, ""},
		{"SO_PASSPIDFD", unix.SO_PASSPIDFD, Reversible, ""},
		{"SO_PASSRIGHTS", unix.SO_PASSRIGHTS, Reversible, "when off, messages with descriptors are refused"},
		{"SO_RCVTIMEO", unix.SO_RCVTIMEO, Reversible, "also limits accept(2)"},
		{"SO_SNDTIMEO", unix.SO_SNDTIMEO, Reversible, ""},
		{"SO_TIMESTAMP", unix.SO_TIMESTAMP_OLD, Reversible, ""},
		{"SO_TIMESTAMPNS", unix.SO_TIMESTAMPNS_OLD, Reversible, ""},
		{"SO_TIMESTAMP_NEW", unix.SO_TIMESTAMP_NEW, Reversible, ""},
		{"SO_TIMESTAMPNS_NEW", unix.SO_TIMESTAMPNS_NEW, Reversible, ""},
		{"SO_TIMESTAMPING", unix.SO_TIMESTAMPING_OLD, Reversible, ""},
		{"SO_MARK", unix.SO_MARK, Refused, "needs CAP_NET_ADMIN, or CAP_NET_RAW"},
		{"SO_RCVMARK", unix.SO_RCVMARK, Reversible, ""},
		{"SO_RCVPRIORITY", unix.SO_RCVPRIORITY, Reversible, ""},
		{"SO_RXQ_OVFL", unix.SO_RXQ_OVFL, Reversible, ""},
		{"SO_WIFI_STATUS", unix.SO_WIFI_STATUS, Reversible, ""},
		{"SO_PEEK_OFF", unix.SO_PEEK_OFF, Reversible, "reads by others skip data"},
		{"SO_NOFCS", unix.SO_NOFCS, Reversible, ""},
		{"SO_SELECT_ERR_QUEUE", unix.SO_SELECT_ERR_QUEUE, Reversible, ""},
		{"SO_BUSY_POLL", unix.SO_BUSY_POLL, Refused, "raising it needs CAP_NET_ADMIN"},
		{"SO_PREFER_BUSY_POLL", unix.SO_PREFER_BUSY_POLL, Refused, "setting it needs CAP_NET_ADMIN"},
		{"SO_MAX_PACING_RATE", unix.SO_MAX_PACING_RATE, Reversible, "inherited by new connections"},
		{"SO_INCOMING_CPU", unix.SO_INCOMING_CPU, Reversible, ""},
		{"SO_ZEROCOPY", unix.SO_ZEROCOPY, Reversible, ""},
		{"SO_TXTIME", unix.SO_TXTIME, Refused, "needs CAP_NET_ADMIN"},
		{"SO_TXREHASH", unix.SO_TXREHASH, Reversible, ""},
		{"SO_RESERVE_MEM", unix.SO_RESERVE_MEM, Refused, "can only grow"},
		{"SO_BINDTODEVICE", unix.SO_BINDTOIFINDEX, Refused, "undoing it needs CAP_NET_RAW; clients on other interfaces cannot connect (likewise SO_BINDTOIFINDEX)"},
		{"SO_LOCK_FILTER", unix.SO_LOCK_FILTER, Refused, "cannot be undone: the filter stays"},

		{"SO_CNX_ADVICE", unix.SO_CNX_ADVICE, Unseen, "no effect on a socket without a peer"},
		{"SO_BUSY_POLL_BUDGET", unix.SO_BUSY_POLL_BUDGET, Unseen, "affects speed only"},
		{"SO_DETACH_REUSEPORT_BPF", unix.SO_DETACH_REUSEPORT_BPF, Unseen, "removes the app's own program for a SO_REUSEPORT group"},
		{"SO_ATTACH_REUSEPORT_CBPF", unix.SO_ATTACH_REUSEPORT_CBPF, Unseen, "decides which socket of a SO_REUSEPORT group is chosen"},
		{"SO_ATTACH_REUSEPORT_EBPF", unix.SO_ATTACH_REUSEPORT_EBPF, Unseen, "likewise"},
		{"SO_INQ", unix.SO_INQ, Unseen, "only adds to what recvmsg(2) returns"},
		{"SO_DEVMEM_DONTNEED", unix.SO_DEVMEM_DONTNEED, Unseen, "no effect on a socket without a peer"},
	}),
	options(unix.IPPROTO_IP, []row{
		{"IP_TOS", unix.IP_TOS, Reversible, "inherited by new connections"},
		{"IP_TTL", unix.IP_TTL, Reversible, "with 1, no response leaves the local network"},
		{"IP_MINTTL", unix.IP_MINTTL, Reversible, "with 255, clients behind a router cannot connect"},
		{"IP_OPTIONS", unix.IP_OPTIONS, Reversible, "inherited by new connections"},
		{"IP_RECVOPTS", unix.IP_RECVOPTS, Reversible, ""},
		{"IP_RETOPTS", unix.IP_RETOPTS, Reversible, ""},
		{"IP_PKTINFO", unix.IP_PKTINFO, Reversible, ""},
		{"IP_MTU_DISCOVER", unix.IP_MTU_DISCOVER, Reversible, ""},
		{"IP_RECVERR", unix.IP_RECVERR, Reversible, ""},
		{"IP_RECVERR_RFC4884", unix.IP_RECVERR_RFC4884, Reversible, ""},
		{"IP_RECVTTL", unix.IP_RECVTTL, Reversible, ""},
		{"IP_RECVTOS", unix.IP_RECVTOS, Reversible, ""},
		{"IP_FREEBIND", unix.IP_FREEBIND, Reversible, ""},
		{"IP_PASSSEC", unix.IP_PASSSEC, Reversible, ""},
		{"IP_TRANSPARENT", unix.IP_TRANSPARENT, Refused, "setting it needs CAP_NET_ADMIN"},
		{"IP_RECVORIGDSTADDR", unix.IP_RECVORIGDSTADDR, Reversible, ""},
		{"IP_CHECKSUM", unix.IP_CHECKSUM, Reversible, ""},
		{"IP_BIND_ADDRESS_NO_PORT", unix.IP_BIND_ADDRESS_NO_PORT, Reversible, ""},
		{"IP_RECVFRAGSIZE", unix.IP_RECVFRAGSIZE, Reversible, ""},
		{"IP_MULTICAST_IF", unix.IP_MULTICAST_IF, Reversible, ""},
		{"IP_MULTICAST_TTL", unix.IP_MULTICAST_TTL, Reversible, ""},
		{"IP_MULTICAST_LOOP", unix.IP_MULTICAST_LOOP, Reversible, ""},
		{"IP_MULTICAST_ALL", unix.IP_MULTICAST_ALL, Reversible, ""},
		{"IP_UNICAST_IF", unix.IP_UNICAST_IF, Reversible, ""},
		{"IP_LOCAL_PORT_RANGE", unix.IP_LOCAL_PORT_RANGE, Reversible, ""},
		{"IP_XFRM_POLICY", unix.IP_XFRM_POLICY, Unseen, "needs CAP_NET_ADMIN; likewise IP_IPSEC_POLICY and IPV6_XFRM_POLICY"},
		{"IP_ADD_MEMBERSHIP", unix.IP_ADD_MEMBERSHIP, Unseen, "multicast groups joined or left, and the sources blocked in them"},
	}),
	options(unix.IPPROTO_IPV6, []row{
		{"IPV6_UNICAST_HOPS", unix.IPV6_UNICAST_HOPS, Reversible, "with 1, no response leaves the local network"},
		{"IPV6_MINHOPCOUNT", unix.IPV6_MINHOPCOUNT, Reversible, "with 255, clients behind a router cannot connect"},
		{"IPV6_TCLASS", unix.IPV6_TCLASS, Reversible, "inherited by new connections"},
		{"IPV6_ADDR_PREFERENCES", unix.IPV6_ADDR_PREFERENCES, Reversible, ""},
		{"IPV6_AUTOFLOWLABEL", unix.IPV6_AUTOFLOWLABEL, Reversible, ""},
		{"IPV6_FLOWINFO_SEND", 33, Reversible, ""}, // include/uapi/linux/in6.h
		{"IPV6_FLOWINFO", 11, Reversible, ""},
		{"IPV6_MTU_DISCOVER", unix.IPV6_MTU_DISCOVER, Reversible, ""},
		{"IPV6_DONTFRAG", unix.IPV6_DONTFRAG, Reversible, ""},
		{"IPV6_FREEBIND", unix.IPV6_FREEBIND, Reversible, ""},
		{"IPV6_TRANSPARENT", unix.IPV6_TRANSPARENT, Refused, "setting it needs CAP_NET_ADMIN"},
		{"IPV6_MULTICAST_IF", unix.IPV6_MULTICAST_IF, Reversible, ""},
		{"IPV6_MULTICAST_HOPS", unix.IPV6_MULTICAST_HOPS, Reversible, ""},
		{"IPV6_MULTICAST_LOOP", unix.IPV6_MULTICAST_LOOP, Reversible, ""},
		{"IPV6_MULTICAST_ALL", unix.IPV6_MULTICAST_ALL, Reversible, ""},
		{"IPV6_UNICAST_IF", unix.IPV6_UNICAST_IF, Reversible, ""},
		{"IPV6_RECVERR", unix.IPV6_RECVERR, Reversible, ""},
		{"IPV6_RECVERR_RFC4884", unix.IPV6_RECVERR_RFC4884, Reversible, ""},
		{"IPV6_RECVPKTINFO", unix.IPV6_RECVPKTINFO, Reversible, ""},
		{"IPV6_RECVHOPLIMIT", unix.IPV6_RECVHOPLIMIT, Reversible, ""},
		{"IPV6_RECVHOPOPTS", unix.IPV6_RECVHOPOPTS, Reversible, ""},
		{"IPV6_RECVRTHDR", unix.IPV6_RECVRTHDR, Reversible, ""},
		{"IPV6_RECVDSTOPTS", unix.IPV6_RECVDSTOPTS, Reversible, ""},
		{"IPV6_RECVPATHMTU", unix.IPV6_RECVPATHMTU, Reversible, ""},
		{"IPV6_RECVTCLASS", unix.IPV6_RECVTCLASS, Reversible, ""},
		{"IPV6_RECVORIGDSTADDR", unix.IPV6_RECVORIGDSTADDR, Reversible, ""},
		{"IPV6_ROUTER_ALERT_ISOLATE", unix.IPV6_ROUTER_ALERT_ISOLATE, Reversible, ""},
		{"IPV6_RECVFRAGSIZE", unix.IPV6_RECVFRAGSIZE, Reversible, ""},
		{"IPV6_2292PKTINFO", unix.IPV6_2292PKTINFO, Reversible, ""},
		{"IPV6_2292HOPOPTS", unix.IPV6_2292HOPOPTS, Reversible, ""},
		{"IPV6_2292DSTOPTS", unix.IPV6_2292DSTOPTS, Reversible, ""},
		{"IPV6_2292RTHDR", unix.IPV6_2292RTHDR, Reversible, ""},
		{"IPV6_2292HOPLIMIT", unix.IPV6_2292HOPLIMIT, Reversible, ""},
		{"IPV6_HOPOPTS", unix.IPV6_HOPOPTS, Refused, "needs CAP_NET_RAW"},
		{"IPV6_RTHDRDSTOPTS", unix.IPV6_RTHDRDSTOPTS, Refused, "needs CAP_NET_RAW"},
		{"IPV6_DSTOPTS", unix.IPV6_DSTOPTS, Refused, "needs CAP_NET_RAW"},
		{"IPV6_RTHDR", unix.IPV6_RTHDR, Reversible, "inherited by new connections"},
		{"IPV6_ADDRFORM", unix.IPV6_ADDRFORM, Refused, "turns an IPv6 datagram socket into an IPv4 one for good; seen through SO_DOMAIN"},
		{"IPV6_MTU", unix.IPV6_MTU, Unseen, "datagrams are fragmented to that size"},
		{"IPV6_2292PKTOPTIONS", unix.IPV6_2292PKTOPTIONS, Unseen, "options sent with each packet"},
		{"IPV6_PKTINFO", unix.IPV6_PKTINFO, Unseen, "source address of outgoing packets"},
		{"IPV6_FLOWLABEL_MGR", 32, Unseen, "flow labels of outgoing packets"},
		{"IPV6_JOIN_GROUP", unix.IPV6_JOIN_GROUP, Unseen, "multicast groups joined or left; likewise IPV6_JOIN_ANYCAST"},
	}),
	options(unix.IPPROTO_TCP, []row{
		{"TCP_NODELAY", unix.TCP_NODELAY, Reversible, "inherited by new connections"},
		{"TCP_MAXSEG", unix.TCP_MAXSEG, Reversible, "inherited by new connections"},
		{"TCP_CORK", unix.TCP_CORK, Reversible, "inherited by new connections: responses are held back"},
		{"TCP_KEEPIDLE", unix.TCP_KEEPIDLE, Reversible, "inherited by new connections"},
		{"TCP_KEEPINTVL", unix.TCP_KEEPINTVL, Reversible, "inherited by new connections"},
		{"TCP_KEEPCNT", unix.TCP_KEEPCNT, Reversible, "inherited by new connections"},
		{"TCP_SYNCNT", unix.TCP_SYNCNT, Reversible, ""},
		{"TCP_LINGER2", unix.TCP_LINGER2, Reversible, "inherited by new connections"},
		{"TCP_DEFER_ACCEPT", unix.TCP_DEFER_ACCEPT, Reversible, "connections are accepted only once the client has sent data"},
		{"TCP_WINDOW_CLAMP", unix.TCP_WINDOW_CLAMP, Reversible, "inherited by new connections; 0 is restored as the largest window"},
		{"TCP_QUICKACK", unix.TCP_QUICKACK, Reversible, ""},
		{"TCP_CONGESTION", unix.TCP_CONGESTION, Reversible, "inherited by new connections"},
		{"TCP_THIN_LINEAR_TIMEOUTS", unix.TCP_THIN_LINEAR_TIMEOUTS, Reversible, ""},
		{"TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, Reversible, "inherited by new connections: they time out early"},
		{"TCP_FASTOPEN", unix.TCP_FASTOPEN, Reversible, ""},
		{"TCP_FASTOPEN_NO_COOKIE", unix.TCP_FASTOPEN_NO_COOKIE, Reversible, ""},
		{"TCP_NOTSENT_LOWAT", unix.TCP_NOTSENT_LOWAT, Reversible, "inherited by new connections"},
		{"TCP_SAVE_SYN", unix.TCP_SAVE_SYN, Reversible, ""},
		{"TCP_INQ", unix.TCP_INQ, Reversible, ""},
		{"TCP_TX_DELAY", unix.TCP_TX_DELAY, Reversible, "inherited by new connections: every response is delayed"},
		{"TCP_RTO_MAX_MS", unix.TCP_RTO_MAX_MS, Reversible, "inherited by new connections"},
		{"TCP_RTO_MIN_US", unix.TCP_RTO_MIN_US, Reversible, "inherited by new connections"},
		{"TCP_DELACK_MAX_US", unix.TCP_DELACK_MAX_US, Reversible, "inherited by new connections"},
		{"TCP_FASTOPEN_KEY", unix.TCP_FASTOPEN_KEY, Refused, "a key can be replaced, not removed"},
		{"TCP_MD5SIG_EXT", unix.TCP_MD5SIG_EXT, Unseen, "clients without the key cannot connect; it can be deleted only with the address it was added for (likewise TCP_MD5SIG and TCP_AO_ADD_KEY)"},
	}),
	options(unix.IPPROTO_UDP, []row{
		{"UDP_CORK", unix.UDP_CORK, Reversible, "responses are held back"},
		{"UDP_ENCAP", unix.UDP_ENCAP, Reversible, "datagrams are handled as IPsec or L2TP"},
		{"UDP_NO_CHECK6_TX", unix.UDP_NO_CHECK6_TX, Reversible, ""},
		{"UDP_NO_CHECK6_RX", unix.UDP_NO_CHECK6_RX, Reversible, ""},
		{"UDP_SEGMENT", unix.UDP_SEGMENT, Reversible, "responses are split"},
		{"UDP_GRO", unix.UDP_GRO, Reversible, "datagrams are merged"},
	}),
)

// maxOption exceeds the size of every value, in bytes.
const maxOption = 256

// Has reports whether a socket of this domain and protocol (SO_DOMAIN, SO_PROTOCOL) can have the option. An IPv6 socket also has
// the options of IPv4, for its IPv4 clients.
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

// Value reads an option, in the kernel's own representation.
func (o SocketOption) Value(fd int) ([]byte, error) {
	value := make([]byte, maxOption)
	n, err := getsockopt(fd, o.level, o.opt, value)
	return value[:n], os.NewSyscallError("getsockopt "+o.name, err)
}

// quirk is what sets an option apart from those of which setsockopt(2) takes exactly what getsockopt(2) returns.
type quirk struct {
	unset    func(value []byte) bool                          // the values that all mean "never set"; nil: there is one at most
	computed bool                                             // unset, it shows a value that the kernel computes
	putBack  func(o SharedOption, fd int, value []byte) error // nil: setsockopt(2)
}

// quirks are by the name of the option.
var quirks = map[string]quirk{
	"SO_SNDBUF":        {putBack: putBackBuffer},
	"SO_RCVBUF":        {putBack: putBackBuffer},
	"SO_LINGER":        {unset: isOff, putBack: putBackLinger},
	"TCP_WINDOW_CLAMP": {unset: noWindowClamp, putBack: putBackWindowClamp},
	"TCP_MAXSEG":       {unset: noMaxSeg, putBack: putBackMaxSeg, computed: true},
}

// PutBack sets what Value returned.
func (o SharedOption) PutBack(fd int, value []byte) error {
	if putBack := quirks[o.name].putBack; putBack != nil {
		return putBack(o, fd, value)
	}
	return o.set(fd, value)
}

// Same reports whether two values mean the same.
func (o SharedOption) Same(a, b []byte) bool {
	unset := quirks[o.name].unset
	return bytes.Equal(a, b) || unset != nil && unset(a) && unset(b)
}

// Settles reports whether a successful PutBack of this value has restored it, whatever Value returns afterwards.
func (o SharedOption) Settles(was []byte) bool {
	q := quirks[o.name]
	return q.computed && q.unset(was)
}

// putBackBuffer halves the size, since the kernel doubles what it is given (socket(7)). Without CAP_NET_ADMIN the administrator's
// limit holds.
func putBackBuffer(o SharedOption, fd int, value []byte) error {
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

func isOff(value []byte) bool { return number(value) == 0 }

// putBackLinger turns it on first where it was off: only then does the kernel take the time.
func putBackLinger(o SharedOption, fd int, value []byte) error {
	if isOff(value) {
		on := bytes.Clone(value)
		binary.NativeEndian.PutUint32(on, 1)
		if err := o.set(fd, on); err != nil {
			return err
		}
	}
	return o.set(fd, value)
}

// largestWindow is what a connection gets where no clamp is set (tcp_select_initial_window in net/ipv4/tcp_output.c).
const largestWindow = 0xffff << 14

func noWindowClamp(value []byte) bool { return number(value) == 0 || number(value) == largestWindow }

// putBackWindowClamp sets the largest window instead of 0, which a listener refuses.
func putBackWindowClamp(o SharedOption, fd int, value []byte) error {
	if number(value) == 0 {
		value = bytesOf(largestWindow)
	}
	return o.set(fd, value)
}

// noMaxSeg also holds for what a listener shows that was a client for a while: what the kernel computed from IP_OPTIONS.
func noMaxSeg(value []byte) bool {
	const smallest = 88 // that can be set: TCP_MIN_MSS of include/net/tcp.h
	return number(value) == unix.TCP_MSS_DEFAULT || number(value) < smallest
}

func putBackMaxSeg(o SharedOption, fd int, value []byte) error {
	if noMaxSeg(value) {
		value = bytesOf(0)
	}
	return o.set(fd, value)
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

// getsockopt reads into value, and returns the length that the kernel reports.
func getsockopt(fd, level, opt int, value []byte) (int, error) {
	n := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func setsockopt(fd, level, opt int, value []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// filterInstruction is the size of a struct sock_filter.
const filterInstruction = 8

// Filter reads the classic BPF filter of a socket as it was attached (SO_GET_FILTER, socket(7)); nil where there is none. An eBPF
// filter cannot be read: EACCES.
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

// SetFilter replaces the filter with one that Filter returned; nil detaches it.
func SetFilter(fd int, filter []byte) error {
	if len(filter) == 0 {
		return os.NewSyscallError("setsockopt SO_DETACH_FILTER", setsockopt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, bytesOf(0)))
	}
	program := unix.SockFprog{Len: uint16(len(filter) / filterInstruction), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}
