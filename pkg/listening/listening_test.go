package listening

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// As a little-endian kernel writes it.
const table = header +
	"   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1586 1 00000000df6060ce 100 0 0 10 0\n" +
	"   1: 0100007F:2C81 0100007F:AEF4 06 00000000:00000000 03:00000134 00000000     0        0 0 3 0000000021173d75\n" +
	"   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 18446744073709551615 1 0000000081a0176b 100 0 0 10 0\n" +
	"   3: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 7 1 0\n" +
	"   4: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 8 1 0\n"

func TestParse(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("NOT TESTED: parsing: the table is from a little-endian machine") // the tests of pkg/probe read the machine's own
	}
	for _, want := range []Socket{
		{netip.MustParseAddrPort("0.0.0.0:2024"), 0, 1586},
		{netip.MustParseAddrPort("127.0.0.1:8080"), 1000, 18446744073709551615},
		{netip.MustParseAddrPort("[::ffff:127.0.0.1]:8081"), 0, 7},
		{netip.MustParseAddrPort("[::1]:8082"), 0, 8},
	} {
		got, err := parse(strings.NewReader(table), tcp.state, want.Addr.Port(), true)
		if err != nil || !reflect.DeepEqual(got, []Socket{want}) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
		first := want.Inode == 1586
		if got, err := parse(strings.NewReader(table), tcp.state, want.Addr.Port(), false); err != nil || (len(got) == 1) != first {
			t.Errorf("up to the first other one: %v, %v", got, err)
		}
	}
}

// TestTooManySockets: more than maxSockets on a port are an error, and sockets on other ports are not kept.
func TestTooManySockets(t *testing.T) {
	const row = "   0: 00000000:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1586 1 00000000df6060ce 100 0 0 10 0\n"
	for n, fails := range map[int]bool{maxSockets: false, maxSockets + 1: true} {
		text := header + strings.Repeat(fmt.Sprintf(row, 81), 10*maxSockets) + strings.Repeat(fmt.Sprintf(row, 80), n)
		all, err := parse(strings.NewReader(text), tcp.state, 80, true)
		if (err != nil) != fails || !fails && len(all) != n {
			t.Errorf("%d: %d, %v", n, len(all), err)
		}
	}
}

// TestChoose: sockets that share an address are chosen together, whatever their owner: every one has to be good.
func TestChoose(t *testing.T) {
	row := func(addr string, inode uint64) Socket { return Socket{netip.MustParseAddrPort(addr), 0, inode} }
	all := []Socket{
		row("[::]:80", 1), row("0.0.0.0:80", 2), row("127.0.0.1:80", 3), row("127.0.0.1:80", 4), row("[::1]:80", 5), row("[::ffff:127.0.0.2]:80", 6),
		row("[::]:81", 7), row("127.0.0.1:82", 8),
	}
	for addr, want := range map[string][]uint64{
		"127.0.0.1:80": {3, 4}, "127.0.0.2:80": {6}, "127.0.0.3:80": {2}, "[::1]:80": {5}, "[::2]:80": {1}, "[::ffff:127.0.0.3]:80": {2},
		"[fe80::1%lo]:80": {1}, "127.0.0.1:81": {7}, "[::1]:81": {7}, "127.0.0.2:82": nil, "[::1]:82": nil,
	} {
		if got := inodesOf(choose(all, netip.MustParseAddrPort(addr))); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

// TestUDP6Remote: the remote address of the socket with exactly this inode, if it is among the first.
func TestUDP6Remote(t *testing.T) {
	const (
		header = "  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
		none   = "  100: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 123 2 0000000000000000 0\n"
		peer   = "  101: 00000000000000000000000001000000:1F91 00000000000000000000000001000000:0050 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 0\n"
	)
	for _, test := range []struct {
		table string
		inode uint64
		want  netip.Addr
	}{
		{header + none + peer, 123, netip.IPv6Unspecified()},
		{header + none + peer, 12345, netip.IPv6Loopback()},
		{header + none + peer, 1234, netip.Addr{}},
		{header + strings.Repeat(none, maxUDP) + peer, 12345, netip.Addr{}},
		{"", 123, netip.Addr{}},
	} {
		if got, ok := udp6Remote(strings.NewReader(test.table), test.inode); got != test.want || ok != test.want.IsValid() {
			t.Errorf("inode %d in %d bytes: %v, %v, want %v", test.inode, len(test.table), got, ok, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		table, header, "", "x\n0: 1:2 3 0A 5 6 7 8 9 0\n", header + "0: 0:1F90 0:0 0A 0 0 0 0 0 1\n", header + "0: 0100007F:FFFFF 0 0A 0 0 0 0 0 1\n",
		header + "0: +100007F:1F90 0 0A 0 0 0 0 0 -1\n", header + "0: 0100007F 0 0A 0 0 0 0 0 1\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parse(strings.NewReader(text), tcp.state, 0x1F90, true)
		for _, l := range all {
			if !l.Addr.IsValid() {
				t.Fatalf("%q: %v", text, l)
			}
			if inodes := inodesOf(choose(all, l.Addr)); !slices.Contains(inodes, l.Inode) {
				t.Fatalf("%q: %v is not among %v", text, l, inodes)
			}
		}
		if err != nil && !strings.Contains(err.Error(), "cannot read the line") && !strings.Contains(err.Error(), "token too long") &&
			!strings.Contains(err.Error(), "sockets listen on port") {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func inodesOf(sockets []Socket) (inodes []uint64) {
	for _, s := range sockets {
		inodes = append(inodes, s.Inode)
	}
	return inodes
}
