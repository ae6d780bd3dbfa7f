package sockets

import (
	"slices"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/listening"
)

// Rival is a foreign socket that receives a part of what clients send to a socket of the Set.
type Rival struct {
	Socket *Socket // of the Set
	Other  listening.Socket
}

// Rivals returns the rivals of all sockets. Only a socket that can share its port has any. It reads /proc, which is slow with
// many sockets. The error is that of the first table that could not be read.
func (set *Set) Rivals() (rivals []Rival, err error) {
	own := map[uint64]bool{}
	for _, s := range set.sockets {
		own[s.inode()] = true
	}
	for _, s := range set.sockets {
		others, err := s.rivals()
		if err != nil {
			return nil, err
		}
		for _, other := range others {
			if !own[other.Inode] { // several -bind may share a port as well
				rivals = append(rivals, Rival{s, other})
			}
		}
	}
	return rivals, nil
}

func (s *Socket) rivals() ([]listening.Socket, error) {
	at, ok := s.inetAddress()
	if !ok || !s.Shareable() {
		return nil, nil
	}
	return listening.Rivals(s.bound.Network[:3], at.Port(), s.inode(), s.v6only != 0)
}

// inode identifies the socket in /proc; 0 if it is closed.
func (s *Socket) inode() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stat syscall.Stat_t
	if s.fd < 0 || syscall.Fstat(s.fd, &stat) != nil {
		return 0
	}
	return stat.Ino
}

// Shareable reports whether another socket may be bound to the same port and receive there: SO_REUSEPORT, for UDP SO_REUSEADDR as well
// (socket(7)).
func (s *Socket) Shareable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	options := []linux.SocketOption{linux.ReusePort}
	if s.isUDP() {
		options = append(options, linux.ReuseAddr)
	}
	return s.fd >= 0 && slices.ContainsFunc(options, func(o linux.SocketOption) bool {
		value, err := linux.Option(s.fd, o)
		return err == nil && value != 0
	})
}

func (s *Socket) isUDP() bool { return strings.HasPrefix(s.bound.Network, "udp") }

// Waiting returns how many connections wait to be accepted, or for UDP the size of the first datagram in bytes; 0 if unknown.
func (s *Socket) Waiting() int {
	if length, _, err := s.Queue(); err == nil {
		return int(length)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || !s.isUDP() {
		return 0
	}
	bytes, _ := linux.NextDatagram(s.fd)
	return bytes
}
