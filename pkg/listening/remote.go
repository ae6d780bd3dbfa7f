package listening

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// maxUDP limits how many sockets of /proc/net/udp6 are read.
const maxUDP = 1500

// UDP6Remote returns the remote address that the kernel keeps for the IPv6 datagram socket with an inode; ok is false if the socket
// is not among the first that /proc lists. getpeername(2) does not return it: after connect(2) with AF_UNSPEC there is no peer, but
// the address of the last one remains, and IPv6 datagrams from any other are dropped (__udp_disconnect in net/ipv4/datagram.c
// leaves sk_v6_daddr, which compute_score in net/ipv6/udp.c compares).
func UDP6Remote(inode uint64) (remote netip.Addr, ok bool) {
	file, err := os.Open("/proc/net/udp6")
	if err != nil {
		return netip.Addr{}, false
	}
	defer file.Close()
	return udp6Remote(file, inode)
}

func udp6Remote(r io.Reader, inode uint64) (remote netip.Addr, ok bool) {
	wanted := strconv.FormatUint(inode, 10)
	lines := bufio.NewScanner(r)
	for n := 0; n < maxUDP && lines.Scan(); n++ {
		// sl local_address remote_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[9] != wanted {
			continue
		}
		at, err := parseAddr(f[2])
		return at.Addr(), err == nil
	}
	return netip.Addr{}, false
}
