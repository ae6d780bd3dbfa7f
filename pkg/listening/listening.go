// Package listening finds the sockets of this network namespace that receive what is sent to an address, from /proc/net/tcp, tcp6,
// udp and udp6 (proc_pid_net(5)), the processes that hold them, and the peer to which a UDP socket is limited.
package listening

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Socket is a listening socket.
type Socket struct {
	Addr  netip.AddrPort // IPv4 as such in tcp, else IPv6
	UID   int            // its creator, as seen from the reader's user namespace
	Inode uint64
}

// On returns the sockets to which the kernel gives a connection to addr, none if nothing listens there. There are several if they
// share the address through SO_REUSEPORT, or if one is bound to a device: the connection then goes to one of them.
//
// Linux lists the listening sockets before all others (tcp_get_idx in net/ipv4/tcp_ipv4.c), of which there may be a
// hundred thousand, so it stops at the first other one. Only where that finds nothing it reads all: gVisor has no order.
func On(addr netip.AddrPort) (sockets []Socket, err error) {
	for _, whole := range []bool{false, true} {
		all, err := read(tcp, addr.Port(), whole)
		if err != nil {
			return nil, err
		}
		if sockets = choose(all, addr); len(sockets) > 0 {
			break
		}
	}
	return sockets, nil
}

// protocol is where the kernel lists sockets, and the state of those that receive from any peer (include/net/tcp_states.h).
type protocol struct {
	tables []string
	state  string
}

var (
	tcp = protocol{[]string{"/proc/net/tcp", "/proc/net/tcp6"}, "0A"} // TCP_LISTEN
	udp = protocol{[]string{"/proc/net/udp", "/proc/net/udp6"}, "07"} // TCP_CLOSE: not connected
)

// read returns the listening sockets on a port.
func read(p protocol, port uint16, whole bool) (all []Socket, err error) {
	for _, name := range p.tables {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // without IPv6
		}
		if err != nil {
			return nil, err
		}
		some, err := parse(f, p.state, port, whole)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// choose prefers as the kernel does (inet_lookup_listener, inet6_lookup_listener): the exact address, then any
// address of IPv4 for an IPv4 one, then any address of IPv6. The table does not show which of the last are IPv6-only: for an
// IPv4 address they are assumed not to be.
func choose(all []Socket, addr netip.AddrPort) []Socket {
	ip := addr.Addr().Unmap().WithZone("")
	wildcards := []netip.Addr{netip.IPv6Unspecified()}
	if ip.Is4() {
		wildcards = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, wanted := range append([]netip.Addr{ip}, wildcards...) {
		var chosen []Socket
		for _, s := range all {
			if s.Addr.Port() == addr.Port() && s.Addr.Addr().Unmap() == wanted {
				chosen = append(chosen, s)
			}
		}
		if chosen != nil {
			return chosen
		}
	}
	return nil
}

const bufferSize = 64 << 10

// maxSockets limits how many may share a port through SO_REUSEPORT: each has an inode to look for among the descriptors of processes.
const maxSockets = 1024

// parse reads the listening sockets on a port: all of them, or those before the first row in another state.
func parse(r io.Reader, state string, port uint16, whole bool) ([]Socket, error) {
	var all []Socket
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, bufferSize), bufferSize)
	lines.Scan() // the header
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			return nil, fmt.Errorf("cannot read the line %q", lines.Text())
		}
		if f[3] != state && !whole {
			break
		}
		if f[3] != state {
			continue
		}
		addr, err := parseAddr(f[1])
		uid, err2 := strconv.ParseUint(f[7], 10, 32)
		inode, err3 := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(err, err2, err3); err != nil {
			return nil, fmt.Errorf("cannot read the line %q: %w", lines.Text(), err)
		}
		if addr.Port() != port {
			continue
		}
		if len(all) == maxSockets {
			return nil, fmt.Errorf("more than %d sockets listen on port %d", maxSockets, port)
		}
		all = append(all, Socket{addr, int(uid), inode})
	}
	return all, lines.Err()
}

// parseAddr reads "0100007F:1F90". An address is one or four words, each as the machine has it in memory.
func parseAddr(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", host)
	}
	var ip []byte
	for ; host != ""; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, err
		}
		ip = binary.NativeEndian.AppendUint32(ip, uint32(word))
	}
	addr, _ := netip.AddrFromSlice(ip) // it has 4 or 16 bytes
	return netip.AddrPortFrom(addr, uint16(number)), nil
}
