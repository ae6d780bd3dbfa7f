package listening

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// maxUDP is how much of /proc/net/udp6 is read: some 1,500 sockets.
const maxUDP = 256 << 10

// UDP6Remote returns the remote address that the kernel has for an IPv6 socket for datagrams, by its inode; ok is false where it is not among
// the first that /proc shows. It is not what getpeername(2) says: after connect(2) with AF_UNSPEC there is no peer, and
// yet the address of the last one stays, and datagrams of IPv6 from any other are dropped (__udp_disconnect in net/ipv4/datagram.c
// leaves sk_v6_daddr, which compute_score in net/ipv6/udp.c compares).
func UDP6Remote(inode uint64) (remote netip.Addr, ok bool) {
	file, err := os.Open("/proc/net/udp6")
	if err != nil {
		return netip.Addr{}, false
	}
	defer file.Close()
	return udp6Remote(io.LimitReader(file, maxUDP), inode)
}

func udp6Remote(r io.Reader, inode uint64) (remote netip.Addr, ok bool) {
	wanted := strconv.FormatUint(inode, 10)
	for lines := bufio.NewScanner(r); lines.Scan(); {
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
