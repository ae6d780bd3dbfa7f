package sockets

import (
	"cmp"
	"errors"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/go-logr/logr"
)

// kinds are the socket types of the networks that are not TCP.
var kinds = map[string]int{
	"udp":        syscall.SOCK_DGRAM,
	"udp4":       syscall.SOCK_DGRAM,
	"udp6":       syscall.SOCK_DGRAM,
	"unixgram":   syscall.SOCK_DGRAM,
	"unixpacket": syscall.SOCK_SEQPACKET,
}

// bind makes one socket that is not inherited.
func bind(a Address, shared bool, log logr.Logger) (*Socket, error) {
	s := &Socket{address: a, shared: shared, fd: -1}
	err := s.open(log)
	if err == nil {
		err = s.listen()
	}
	if err == nil {
		err = s.readName()
	}
	if err != nil {
		return nil, errors.Join(advise(a, err), s.close())
	}
	s.remember()
	return s, nil
}

// open makes the socket and binds it.
func (s *Socket) open(log logr.Logger) (err error) {
	if slices.Contains(unixNetworks, s.address.Network) {
		return s.openUnix(log)
	}
	s.fd, err = openInet(s.address, hostOf(s.address))
	if fallsBack(s.address) && (errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)) {
		log.Info("no IPv6 here, binding to IPv4 only", "address", s.address.String(), "reason", err.Error())
		s.fd, err = openInet(s.address, netip.IPv4Unspecified())
	}
	return err
}

// fallsBack reports whether IPv4 alone will do where there is no IPv6: no family was asked for.
func fallsBack(a Address) bool {
	return a.Host == "" && (a.Network == "tcp" || a.Network == "udp") && a.Options.V6Only != On
}

func hostOf(a Address) netip.Addr {
	loopback, all := netip.IPv6Loopback(), netip.IPv6Unspecified()
	if a.is4() {
		loopback, all = netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv4Unspecified()
	}
	switch a.Host {
	case "":
		return all
	case "localhost":
		return loopback
	}
	ip, _ := netip.ParseAddr(a.Host) // BindInet refuses what is none
	return ip
}

// openInet returns a bound socket of the family of ip.
func openInet(a Address, ip netip.Addr) (fd int, err error) {
	domain := syscall.AF_INET6
	if ip.Is4() {
		domain = syscall.AF_INET
	}
	fd, err = linux.Socket(domain, kind(a))
	if err != nil {
		return -1, err
	}
	err = setInetOptions(fd, a, domain)
	if err == nil {
		err = linux.BindInet(fd, netip.AddrPortFrom(ip, uint16(a.Port)))
	}
	if err != nil {
		linux.Close(fd)
		return -1, err
	}
	return fd, nil
}

func kind(a Address) int {
	kind := cmp.Or(kinds[a.Network], syscall.SOCK_STREAM)
	if a.Options.NonBlock == On {
		kind |= syscall.SOCK_NONBLOCK
	}
	return kind
}

func setInetOptions(fd int, a Address, domain int) error {
	tcp := slices.Contains(tcpNetworks, a.Network)
	v6only := 0
	if a.Options.V6Only == On || a.Options.V6Only == Default && strings.HasSuffix(a.Network, "6") {
		v6only = 1
	}
	for _, set := range []struct {
		wanted bool
		option linux.SocketOption
		value  int
	}{
		// Always, since the default is a sysctl (net.ipv6.bindv6only).
		{domain == syscall.AF_INET6, linux.V6Only, v6only},
		// For a restart while old connections are in TIME_WAIT. On UDP it would let any process
		// bind the same port (socket(7)).
		{tcp, linux.ReuseAddr, 1},
		{a.Options.ReusePort, linux.ReusePort, 1},
		{tcp && a.Options.Defer > 0, linux.DeferAccept, int(a.Options.Defer / time.Second)},
	} {
		if !set.wanted {
			continue
		}
		if err := linux.SetOption(fd, set.option, set.value); err != nil {
			return err
		}
	}
	return nil
}

// listen makes a stream or packet socket listen; the others have no connections.
func (s *Socket) listen() error {
	if !slices.Contains(listenNetworks, s.address.Network) {
		return nil
	}
	s.backlog = cmp.Or(s.address.Options.Backlog, maxBacklog)
	return linux.Listen(s.fd, s.backlog)
}

// maxBacklog stands for the largest that the kernel allows, net.core.somaxconn: listen(2) silently takes that for all above it.
const maxBacklog = math.MaxInt32

func sysctl(path string, otherwise int) int {
	content, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || value < 0 {
		return otherwise
	}
	return value
}
