package listening

import (
	"net/netip"
	"slices"
)

// Rivals returns the other sockets that can receive what is sent to the TCP (listening) or UDP socket with an inode: they are
// bound to the same port, and to the same address or one that includes it or is included in it. v6only is the socket's IPV6_V6ONLY; the table
// does not show that of the others: they are assumed to serve IPv4. There are none if the socket is in another network namespace.
//
// The kernel permits this if all of them have SO_REUSEPORT and the same user (socket(7)). For UDP, Rivals reads the whole table.
func Rivals(network string, port uint16, inode uint64, v6only bool) ([]Socket, error) {
	p, wholes := tcp, []bool{false, true} // see On
	if network == "udp" {
		p, wholes = udp, []bool{true}
	}
	for _, whole := range wholes {
		all, err := read(p, port, whole)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(all, func(s Socket) bool { return s.Inode == inode }); i >= 0 {
			own := all[i].Addr.Addr().Unmap()
			return slices.DeleteFunc(all, func(s Socket) bool {
				return s.Inode == inode || !overlap(own, s.Addr.Addr().Unmap(), v6only)
			}), nil
		}
	}
	return nil, nil
}

// overlap reports whether a packet can be sent to both.
func overlap(own, other netip.Addr, v6only bool) bool {
	switch {
	case own == other:
		return true
	case v6only && other.Is4():
		return false
	}
	return own.IsUnspecified() && (own.Is6() || other.Is4()) || other.IsUnspecified() && (other.Is6() || own.Is4())
}
