package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/listening"
)

// A listening socket is one open file description, shared by all generations. A change made by one of them affects all, and outlives
// that one. crank handles two kinds:
//
//   - Tend restores the invariants: the socket listens, its backlog is at least the original one, a datagram socket has no peer, and the
//     path exists.
//   - Flags and options belong to the app. A Snapshot is taken before a candidate starts, and PutBack undoes later changes only if that
//     candidate fails.
//
// docs/sockets.md lists every option, and what cannot be seen or undone.

// Damage is a change to a shared socket that was, or should have been, undone.
type Damage struct {
	Socket *Socket
	What   string // such as "it did not listen"
	Err    error  // why it could not be undone; nil: it was
	Usual  bool   // a smaller backlog, which servers set in good faith

	property string // the name of the property, where it is one of a Snapshot
}

// String names the socket, the damage and why it remains.
func (d Damage) String() string {
	return fmt.Sprintf("socket %s (%s): %s: %v", d.Socket.Name(), d.Socket.Bound(), d.What, d.Err)
}

// Reason is String for callers that must not learn paths.
func (d Damage) Reason() string { return fmt.Sprintf("socket %s: %s", d.Socket.Name(), d.What) }

// Tend restores the invariants, and returns those that did not hold, with what PutBack could not undo. It never blocks: the loop calls
// it once a second and whenever a generation has ended.
func (set *Set) Tend() (found []Damage) {
	for _, s := range set.sockets {
		found = append(found, s.tend()...)
	}
	return found
}

// Broken returns the damage that the last calls of Tend and PutBack could not undo.
func (set *Set) Broken() (all []Damage) {
	for _, s := range set.sockets {
		all = append(all, s.Broken()...)
	}
	return all
}

// invariants each check one property, and restore it. what is empty where it holds, and where a sandbox hides it.
var invariants = []func(*Socket) (what string, err error){
	(*Socket).keepFamily,
	(*Socket).keepPeerless,
	(*Socket).keepListening,
	(*Socket).keepBacklog,
	(*Socket).keepAddress,
	(*Socket).keepOpen,
	(*Socket).keepPath,
}

func (s *Socket) tend() (found []Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	return append(s.keep(), s.stillLost()...)
}

// keep restores the invariants. mu is held.
func (s *Socket) keep() (found []Damage) {
	for _, keep := range invariants {
		if what, err := keep(s); what != "" {
			found = append(found, Damage{Socket: s, What: what, Err: err, Usual: strings.HasPrefix(what, smallerBacklog)})
		}
	}
	s.violated = slices.DeleteFunc(slices.Clone(found), func(d Damage) bool { return d.Err == nil })
	s.count(found)
	return found
}

// count counts the damage that was undone.
func (s *Socket) count(found []Damage) {
	for _, d := range found {
		if d.Err == nil {
			s.restored++
		}
	}
}

// Broken returns the damage that could not be undone so far.
func (s *Socket) Broken() []Damage {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.violated)
	for _, l := range s.lost {
		all = append(all, l.damage)
	}
	return all
}

// Restored returns how many changes to the socket were undone.
func (s *Socket) Restored() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restored
}

// remember reads the state that the invariants are compared with.
func (s *Socket) remember() {
	s.domain, _ = linux.Option(s.fd, linux.SocketDomain)
	s.protocol, _ = linux.Option(s.fd, linux.SocketProtocol)
	s.device, _ = linux.Option(s.fd, linux.BoundDevice)
	s.v6only, _ = linux.Option(s.fd, linux.V6Only) // fails on IPv4
	kind, _ := linux.Option(s.fd, linux.SocketType)
	peer, err := linux.HasPeer(s.fd)
	shut, err2 := linux.IsShutDown(s.fd)
	known := err == nil && err2 == nil && !peer && !shut
	s.datagrams = kind == syscall.SOCK_DGRAM && known
	s.listens, _ = linux.Listens(s.fd)
	if s.listens && s.isTCP() {
		_, s.limit, _, _ = linux.ListenQueue(s.fd) // 0 where a sandbox has no TCP_INFO
		if s.backlog == 0 {
			s.backlog = int(s.limit) // it was inherited
		}
	}
}

// listening reports whether it listens, need not listen, or hides that.
func (s *Socket) listening() bool {
	listens, err := linux.Listens(s.fd)
	return !s.listens || err != nil || listens
}

func (s *Socket) isTCP() bool { return strings.HasPrefix(s.bound.Network, "tcp") }

var errOtherFamily = errors.New("the kernel cannot undo it (IPV6_ADDRFORM of ipv6(7)): restart crank")

func (s *Socket) keepFamily() (what string, err error) {
	if domain, err := linux.Option(s.fd, linux.SocketDomain); err == nil && domain != s.domain {
		return "it is a socket of another family", errOtherFamily
	}
	if v6only, err := linux.Option(s.fd, linux.V6Only); s.domain == syscall.AF_INET6 && s.listening() && err == nil && v6only != s.v6only {
		return "it serves other families (IPV6_V6ONLY)", errOtherFamily
	}
	return "", nil
}

// keepListening is for TCP. Connections that waited in the queue are lost, and connections meanwhile were refused. An app that closes
// its copy of a socket does not cause this.
func (s *Socket) keepListening() (what string, err error) {
	if !s.listens || !s.isTCP() {
		return "", nil
	}
	if listens, err := linux.Listens(s.fd); err == nil && !listens {
		return "it did not listen (shutdown(2) affects every process: make the app close(2) its copy instead)", s.revive()
	}
	return "", nil
}

func (s *Socket) revive() error {
	if s.listenAgain() == nil {
		return nil
	}
	// It was connected meanwhile.
	return errors.Join(linux.Disconnect(s.fd), s.listenAgain())
}

const smallerBacklog = "its backlog was "

// keepBacklog can read the backlog of TCP only. It sets that of a unix socket every time.
func (s *Socket) keepBacklog() (what string, err error) {
	if !s.listens || s.backlog == 0 {
		return "", nil
	}
	if !s.isTCP() || s.limit == 0 {
		if err := linux.Listen(s.fd, s.backlog); err != nil {
			return "its backlog cannot be set", err
		}
		return "", nil
	}
	_, limit, listening, err := linux.ListenQueue(s.fd)
	if err != nil || !listening || limit >= s.limit {
		return "", nil //nolint:nilerr // hidden by a sandbox: see invariants
	}
	what = fmt.Sprintf(smallerBacklog+"%d instead of %d (listen(2) affects every process)", limit, s.limit)
	if err := linux.Listen(s.fd, s.backlog); err != nil {
		return what, err
	}
	if _, now, _, err := linux.ListenQueue(s.fd); err == nil {
		s.limit = min(s.limit, now) // net.core.somaxconn may have become smaller
	}
	return what, nil
}

var errLosesPort = errors.New("cannot disconnect it: it would lose its port, which crank did not choose: configure a port number, and restart crank")

// keepPeerless is for datagram sockets: one that has a peer receives from that peer only.
func (s *Socket) keepPeerless() (what string, err error) {
	if !s.datagrams {
		return "", nil
	}
	if has, err := linux.HasPeer(s.fd); err == nil && has {
		return "it had a peer, and received from that one only (connect(2) affects every process)", s.disconnect()
	}
	if s.hasRemote() {
		return "it receives from one IPv6 address only, a remnant of connect(2)", errOneAddress
	}
	return "", nil
}

var errOneAddress = errors.New("the kernel cannot undo it: restart crank")

// hasRemote reports whether the socket has the address of a peer, as IPv6 keeps it even without one. It reads /proc once a second.
func (s *Socket) hasRemote() bool {
	if s.domain != syscall.AF_INET6 || time.Since(s.remoteRead) < time.Second {
		return s.remote
	}
	var stat syscall.Stat_t
	if syscall.Fstat(s.fd, &stat) != nil {
		return false
	}
	s.remoteRead = time.Now()
	remote, ok := listening.UDP6Remote(stat.Ino)
	s.remote = ok && !remote.IsUnspecified()
	return s.remote
}

// disconnect does nothing where the socket would lose its port, which it does unless the port was asked for by number.
func (s *Socket) disconnect() error {
	if s.domain != syscall.AF_UNIX && s.address.Port == 0 {
		return errLosesPort
	}
	if err := linux.Disconnect(s.fd); err != nil || s.device == 0 {
		return err
	}
	return linux.SetOption(s.fd, linux.BoundDevice, s.device)
}

// keepAddress binds a socket again that lost a port chosen by the kernel: disconnecting it releases the port. It fails where the socket
// was bound to another port since, or where its own was taken.
func (s *Socket) keepAddress() (what string, err error) {
	was, ok := s.inetAddress()
	peer, err := linux.HasPeer(s.fd)
	now, _, err2 := linux.SocketName(s.fd)
	if ok && err == nil && err2 == nil && !peer && now != was {
		return fmt.Sprintf("it was bound to %v (connect(2) with AF_UNSPEC releases a port chosen by the kernel)", now), s.bindAgain(was)
	}
	return "", nil
}

// bindAgain also restores IPV6_V6ONLY, which can be changed while the socket is not bound.
func (s *Socket) bindAgain(at netip.AddrPort) error {
	if s.domain == syscall.AF_INET6 {
		_ = linux.SetOption(s.fd, linux.V6Only, s.v6only) // refused while it is bound
	}
	return linux.BindInet(s.fd, at)
}

// inetAddress is where a TCP or UDP socket was bound.
func (s *Socket) inetAddress() (at netip.AddrPort, ok bool) {
	if !s.isTCP() && !s.isUDP() {
		return at, false
	}
	host, err := netip.ParseAddr(s.bound.Host) // from getsockname(2)
	return netip.AddrPortFrom(host, uint16(s.bound.Port)), err == nil
}

var errShutDown = errors.New("the kernel cannot undo it: restart crank, and make the app close(2) its copy instead")

// keepOpen is for all but TCP: the kernel cannot undo their shutdown(2).
func (s *Socket) keepOpen() (what string, err error) {
	if s.isTCP() || !s.datagrams && !s.listens {
		return "", nil
	}
	if shut, err := linux.IsShutDown(s.fd); err == nil && shut {
		return "it was shut down for everybody", errShutDown
	}
	return "", nil
}
