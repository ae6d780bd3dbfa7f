package sockets

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/linux"
)

// TestRivals: finds other sockets on the port that can receive what is sent to one of crank's, and no others.
func TestRivals(t *testing.T) {
	for _, test := range []struct {
		name, own, other string // PORT is the one of own
		want             []string
	}{
		{"the same address", "tcp://127.0.0.1:0?reuseport", "tcp://127.0.0.1:PORT?reuseport", []string{"127.0.0.1:PORT"}},
		{"all addresses", "tcp4://:0?reuseport", "tcp://127.0.0.1:PORT?reuseport", []string{"127.0.0.1:PORT"}},
		{"one of all", "tcp://127.0.0.1:0?reuseport", "tcp4://:PORT?reuseport", []string{"0.0.0.0:PORT"}},
		{"both families", "tcp://:0?reuseport", "tcp4://:PORT?reuseport", []string{"0.0.0.0:PORT"}},
		{"IPv6 alone", "tcp6://:0?reuseport", "tcp4://:PORT?reuseport", nil},
		{"IPv6", "tcp6://[::1]:0?reuseport", "tcp6://[::1]:PORT?reuseport", []string{"[::1]:PORT"}},
		{"another address", "tcp://127.0.0.1:0?reuseport", "tcp://127.0.0.2:PORT?reuseport", nil},
		{"another port", "tcp://127.0.0.1:0?reuseport", "tcp://127.0.0.1:0?reuseport", nil},
		{"another protocol", "tcp://127.0.0.1:0?reuseport", "udp://127.0.0.1:PORT?reuseport", nil},
		{"UDP", "udp://127.0.0.1:0?reuseport", "udp://127.0.0.1:PORT?reuseport", []string{"127.0.0.1:PORT"}},
		{"UDP on all addresses", "udp://:0?reuseport", "udp6://[::1]:PORT?reuseport", []string{"[::1]:PORT"}},
		{"cannot share its port", "tcp://127.0.0.1:0", "tcp://127.0.0.2:PORT", nil},
		{"a path", "unix://@" + shortDir(t), "unix://@" + shortDir(t), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := bindAll(t, test.own)
			own := set.Sockets()[0]
			number := own.Bound()[strings.LastIndex(own.Bound(), ":")+1:]
			bindAll(t, strings.ReplaceAll(test.other, "PORT", number))
			if got := rivalsOf(t, set, number); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func rivalsOf(t *testing.T, set *Set, port string) (found []string) {
	t.Helper()
	rivals, err := set.Rivals()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rivals {
		if r.Socket != set.Sockets()[0] {
			t.Errorf("a rival of %s", r.Socket.Bound())
		}
		found = append(found, strings.ReplaceAll(r.Other.Addr.String(), port, "PORT"))
	}
	return found
}

// TestNoRivals: several sockets of crank's own share a port on purpose. A connected UDP socket receives from its peer only.
func TestNoRivals(t *testing.T) {
	first := bindAll(t, "udp://127.0.0.1:0?reuseport").Sockets()[0]
	number := port(t, first)
	set := bindAll(t, "udp://127.0.0.1:"+number+"?reuseport", "udp://127.0.0.1:"+number+"?reuseport")
	if got := rivalsOf(t, &Set{sockets: set.Sockets()[:1]}, number); len(got) != 2 {
		t.Errorf("one alone has %v", got)
	}
	if err := syscall.Connect(first.FD(), &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
		t.Fatal(err)
	}
	if got := rivalsOf(t, set, number); got != nil {
		t.Errorf("got %v", got)
	}
}

// TestShareable: systemd sets SO_REUSEADDR on every socket; that alone makes a UDP port shareable.
func TestShareable(t *testing.T) {
	set := bindAll(t, "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "tcp://127.0.0.1:0?reuseport")
	for i, want := range []bool{false, false, true} {
		if got := set.Sockets()[i].Shareable(); got != want {
			t.Errorf("%s: %v", set.Sockets()[i].Bound(), got)
		}
	}
	if err := linux.SetOption(set.Sockets()[1].FD(), linux.ReuseAddr, 1); err != nil {
		t.Fatal(err)
	}
	if !set.Sockets()[1].Shareable() {
		t.Error("UDP with SO_REUSEADDR is not shareable")
	}
}
