package listening

import (
	"net/netip"
	"testing"
)

// TestOverlap: an address overlaps with itself, and with all addresses of its family; all of IPv6 include IPv4 unless IPV6_V6ONLY is set.
func TestOverlap(t *testing.T) {
	for _, test := range []struct {
		own, other   string
		both, v6only bool
	}{
		{"127.0.0.1", "127.0.0.1", true, true},
		{"127.0.0.1", "127.0.0.2", false, false},
		{"127.0.0.1", "0.0.0.0", true, true},
		{"127.0.0.1", "::", true, true},
		{"127.0.0.1", "::1", false, false},
		{"0.0.0.0", "127.0.0.1", true, true},
		{"0.0.0.0", "::", true, true},
		{"0.0.0.0", "::1", false, false},
		{"::", "127.0.0.1", true, false},
		{"::", "0.0.0.0", true, false},
		{"::", "::", true, true},
		{"::", "::1", true, true},
		{"::1", "::", true, true},
		{"::1", "::1", true, true},
		{"::1", "0.0.0.0", false, false},
		{"::1", "127.0.0.1", false, false},
	} {
		own, other := netip.MustParseAddr(test.own), netip.MustParseAddr(test.other)
		for v6only, want := range map[bool]bool{false: test.both, true: test.v6only} {
			if own.Is4() && v6only {
				continue // an IPv4 socket has no such option
			}
			if got := overlap(own, other, v6only); got != want {
				t.Errorf("%s and %s, v6only %v: %v", test.own, test.other, v6only, got)
			}
		}
	}
}
