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

// A listening socket is one open file description, which all generations share. What one of them does to it is done to all,
// and stays when that one has ended. Two things are done about it:
//
//   - What must always hold, the invariants, is restored whenever Tend is called: that it listens, that its backlog is at least what
//     it was bound with, that one for datagrams has no peer, and its path.
//   - All else is the app's own: flags and options. A Snapshot is taken before a candidate starts, and what has changed since then is
//     put back only if that candidate fails.
//
// docs/sockets.md lists every option, and what cannot be seen or undone.

// Damage is what somebody has done to a shared socket.
type Damage struct {
	Socket *Socket
	What   string // what was wrong, as "it did not listen"
	Err    error  // why it could not be undone; nil: it was
	Usual  bool   // servers do it in good faith: a smaller backlog

	what string // which thing of a Snapshot it is about
}

// String says what is wrong with which socket, and why that stays.
func (d Damage) String() string {
	return fmt.Sprintf("socket %s (%s): %s: %v", d.Socket.Name(), d.Socket.Bound(), d.What, d.Err)
}

// Reason says it to those who may not know paths.
func (d Damage) Reason() string { return fmt.Sprintf("socket %s: %s", d.Socket.Name(), d.What) }

// Tend restores what must always hold, and returns what did not. It never blocks: it is for the loop, once a second and whenever a
// generation has ended.
func (set *Set) Tend() (found []Damage) {
	for _, s := range set.sockets {
		found = append(found, s.tend()...)
	}
	return found
}

// Broken returns what the last calls of Tend and PutBack could not undo.
func (set *Set) Broken() (all []Damage) {
	for _, s := range set.sockets {
		all = append(all, s.Broken()...)
	}
	return all
}

// invariants look at one thing each, and restore it. what is empty where it holds, and where a sandbox does not let it be seen.
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
	for _, keep := range invariants {
		if what, err := keep(s); what != "" {
			found = append(found, Damage{Socket: s, What: what, Err: err, Usual: strings.HasPrefix(what, smallerBacklog)})
		}
	}
	s.violated = slices.DeleteFunc(slices.Clone(found), func(d Damage) bool { return d.Err == nil })
	found = append(found, s.stillLost()...)
	s.count(found)
	return found
}

// count counts what was undone.
func (s *Socket) count(found []Damage) {
	for _, d := range found {
		if d.Err == nil {
			s.restored++
		}
	}
}

// Broken returns what could not be undone so far.
func (s *Socket) Broken() []Damage {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.violated)
	for _, l := range s.lost {
		all = append(all, l.damage)
	}
	return all
}

// Restored returns how often something was undone that somebody had done to the socket.
func (s *Socket) Restored() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restored
}

// remember reads what the invariants compare with.
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
		_, s.limit, _, _ = linux.ListenQueue(s.fd) // 0, unknown, where a sandbox has no TCP_INFO
		if s.backlog == 0 {
			s.backlog = int(s.limit) // it was inherited
		}
	}
}

// listening reports whether it listens, as far as that can be seen, or needs not to.
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

// keepListening is for TCP. What waited in the queue is lost, and whoever came meanwhile was refused. An app that closes its copy of
// a socket does not cause this.
func (s *Socket) keepListening() (what string, err error) {
	if !s.listens || !s.isTCP() {
		return "", nil
	}
	if listens, err := linux.Listens(s.fd); err == nil && !listens {
		return "it did not listen (shutdown(2) ends a socket for everybody: have the app close its copy instead)", s.revive()
	}
	return "", nil
}

func (s *Socket) revive() error {
	if s.listenAgain() == nil {
		return nil
	}
	// Somebody has made it a client's.
	return errors.Join(linux.Disconnect(s.fd), s.listenAgain())
}

const smallerBacklog = "its backlog was "

// keepBacklog sees the backlog of TCP alone. That of a unix socket is set each time.
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
		return "", nil //nolint:nilerr // see invariants
	}
	what = fmt.Sprintf(smallerBacklog+"%d instead of %d (listen(2) changes it for everybody)", limit, s.limit)
	if err := linux.Listen(s.fd, s.backlog); err != nil {
		return what, err
	}
	if _, now, _, err := linux.ListenQueue(s.fd); err == nil {
		s.limit = min(s.limit, now) // net.core.somaxconn may have become smaller
	}
	return what, nil
}

var errLosesPort = errors.New("to disconnect it would give up its port, which the kernel has chosen or the parent has bound: bind a port of your own choice, and restart crank")

// keepPeerless is for datagrams: a socket that has a peer receives from that alone.
func (s *Socket) keepPeerless() (what string, err error) {
	if !s.datagrams {
		return "", nil
	}
	if has, err := linux.HasPeer(s.fd); err == nil && has {
		return "it had a peer, and heard nobody else (connect(2) connects it for everybody)", s.disconnect()
	}
	if s.hearsOne() {
		return "it hears one IPv6 address only (connect(2) leaves that behind, also without a peer)", errHearsOne
	}
	return "", nil
}

var errHearsOne = errors.New("the kernel cannot undo it: restart crank")

// hearsOne looks once a second.
func (s *Socket) hearsOne() bool {
	if s.domain != syscall.AF_INET6 || time.Since(s.remoteSeen) < time.Second {
		return s.deaf
	}
	var stat syscall.Stat_t
	if syscall.Fstat(s.fd, &stat) != nil {
		return false
	}
	s.remoteSeen = time.Now()
	remote, ok := listening.UDP6Remote(stat.Ino)
	s.deaf = ok && !remote.IsUnspecified()
	return s.deaf
}

// disconnect loses nothing but a port that nobody asked for by its number: then it does nothing.
func (s *Socket) disconnect() error {
	if s.domain != syscall.AF_UNIX && s.address.Port == 0 {
		return errLosesPort
	}
	if err := linux.Disconnect(s.fd); err != nil || s.device == 0 {
		return err
	}
	return linux.SetOption(s.fd, linux.BoundDevice, s.device)
}

// keepAddress: who disconnects a socket whose port the kernel has chosen gives that up, and may bind the socket to another one. It is bound
// again as long as it has none, and nobody else has its port.
func (s *Socket) keepAddress() (what string, err error) {
	was, ok := s.inetAddress()
	peer, err := linux.HasPeer(s.fd)
	now, _, err2 := linux.SocketName(s.fd)
	if ok && err == nil && err2 == nil && !peer && now != was {
		return fmt.Sprintf("it was bound to %v (connect(2) with AF_UNSPEC releases a port that the kernel has chosen)", now), s.bindAgain(was)
	}
	return "", nil
}

// bindAgain also undoes what can be changed only while a socket is not bound: by root it may be under repair (TCP_REPAIR), and by anybody
// for IPv6 alone.
func (s *Socket) bindAgain(at netip.AddrPort) error {
	if s.domain == syscall.AF_INET6 {
		_ = linux.SetOption(s.fd, linux.V6Only, s.v6only) // refused where it is bound
	}
	return linux.BindInet(s.fd, at)
}

// inetAddress is where a TCP or UDP socket was bound.
func (s *Socket) inetAddress() (at netip.AddrPort, ok bool) {
	if !s.isTCP() && !strings.HasPrefix(s.bound.Network, "udp") {
		return at, false
	}
	host, err := netip.ParseAddr(s.bound.Host) // getsockname(2) has said it
	return netip.AddrPortFrom(host, uint16(s.bound.Port)), err == nil
}

var errShutDown = errors.New("the kernel cannot undo it: restart crank, and have the app close its copy instead of shutdown(2)")

// keepOpen is for what the kernel lets nobody revive: all but TCP.
func (s *Socket) keepOpen() (what string, err error) {
	if s.isTCP() || !s.datagrams && !s.listens {
		return "", nil
	}
	if shut, err := linux.IsShutDown(s.fd); err == nil && shut {
		return "it was shut down for everybody", errShutDown
	}
	return "", nil
}
