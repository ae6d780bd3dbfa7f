package probe

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

// listener is a row of /proc/net/tcp or tcp6 (proc_pid_net(5)).
type listener struct {
	addr  netip.AddrPort // IPv4 as such in tcp, else IPv6
	inode uint64
}

// listeningOn returns the inodes of the sockets, in crank's own network namespace, to which the kernel gives a
// connection to addr. They are several where they share it by SO_REUSEPORT.
//
// Linux lists the listening sockets before all others (tcp_get_idx in net/ipv4/tcp_ipv4.c), of which there may be a
// hundred thousand, so it stops at the first other one. Only where that finds nothing it reads all: gVisor has no order.
func listeningOn(addr netip.AddrPort) (inodes []uint64, err error) {
	for _, whole := range []bool{false, true} {
		all, err := readListeners(addr.Port(), whole)
		if err != nil {
			return nil, err
		}
		if inodes = choose(all, addr); len(inodes) > 0 {
			break
		}
	}
	return inodes, nil
}

// readListeners returns the listening sockets on a port.
func readListeners(port uint16, whole bool) (all []listener, err error) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // without IPv6
		}
		if err != nil {
			return nil, err
		}
		some, err := parseListeners(f, port, whole)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// choose prefers as the kernel does (inet_lookup_listener, inet6_lookup_listener): the exact address, then any
// address of IPv4 for an IPv4 one, then any address of IPv6.
func choose(all []listener, addr netip.AddrPort) []uint64 {
	ip := addr.Addr().Unmap().WithZone("")
	wildcards := []netip.Addr{netip.IPv6Unspecified()}
	if ip.Is4() {
		wildcards = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, wanted := range append([]netip.Addr{ip}, wildcards...) {
		var inodes []uint64
		for _, l := range all {
			if l.addr.Port() == addr.Port() && l.addr.Addr().Unmap() == wanted {
				inodes = append(inodes, l.inode)
			}
		}
		if inodes != nil {
			return inodes
		}
	}
	return nil
}

const (
	stateListen = "0A" // TCP_LISTEN
	bufferSize  = 64 << 10
)

// maxListeners is how many sockets may share an address by SO_REUSEPORT, each with one to look for among the descriptors of processes.
const maxListeners = 1024

// parseListeners reads the listening sockets on a port: all, or those before the first other one.
func parseListeners(r io.Reader, port uint16, whole bool) ([]listener, error) {
	var all []listener
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, bufferSize), bufferSize)
	lines.Scan() // the header
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			return nil, fmt.Errorf("cannot read the line %q", lines.Text())
		}
		if f[3] != stateListen && !whole {
			break
		}
		if f[3] != stateListen {
			continue
		}
		addr, err := parseAddr(f[1])
		inode, err2 := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("cannot read the line %q: %w", lines.Text(), err)
		}
		if addr.Port() != port {
			continue
		}
		if len(all) == maxListeners {
			return nil, fmt.Errorf("more than %d sockets listen on port %d", maxListeners, port)
		}
		all = append(all, listener{addr, inode})
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
