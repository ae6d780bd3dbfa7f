package sockets

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseAddress(t *testing.T) {
	longest := "/" + strings.Repeat("x", 106)
	tests := []struct {
		uri  string
		want Address
	}{
		{":8080", Address{Network: "tcp", Port: 8080}},
		{"127.0.0.1:8080", Address{Network: "tcp", Host: "127.0.0.1", Port: 8080}},
		{"localhost:80", Address{Network: "tcp", Host: "localhost", Port: 80}},
		{"[::]:80", Address{Network: "tcp", Host: "::", Port: 80}},
		{"[0:0::1]:80", Address{Network: "tcp", Host: "::1", Port: 80}},
		{"[fe80::1%eth0]:80", Address{Network: "tcp", Host: "fe80::1%eth0", Port: 80}},
		{"./path.sock", Address{Network: "unix", Path: "./path.sock"}},
		{"/run/app.sock", Address{Network: "unix", Path: "/run/app.sock"}},
		{longest, Address{Network: "unix", Path: longest}},
		{"app.sock", Address{Network: "unix", Path: "app.sock"}},
		{"./a=b", Address{Network: "unix", Path: "./a=b"}},
		{"a=./b", Address{Name: "a", Network: "unix", Path: "./b"}},
		{"@app", Address{Network: "unix", Path: "@app"}},
		{"tcp://:8080", Address{Network: "tcp", Port: 8080}},
		{"tcp4://0.0.0.0:8080", Address{Network: "tcp4", Host: "0.0.0.0", Port: 8080}},
		{"tcp6://[::1]:0", Address{Network: "tcp6", Host: "::1"}},
		{"udp://:53", Address{Network: "udp", Port: 53}},
		{"udp4://127.0.0.1:53", Address{Network: "udp4", Host: "127.0.0.1", Port: 53}},
		{"udp6://:53", Address{Network: "udp6", Port: 53}},
		{"unix:///run/app.sock", Address{Network: "unix", Path: "/run/app.sock"}},
		{"unix:///run/a,b:c=d@e", Address{Network: "unix", Path: "/run/a,b:c=d@e"}},
		{"unix://@app", Address{Network: "unix", Path: "@app"}},
		{"unixpacket://p", Address{Network: "unixpacket", Path: "p"}},
		{"unixgram://p", Address{Network: "unixgram", Path: "p"}},
		{"fd://3", Address{Network: "fd", FD: 3}},
		{"fd://web", Address{Network: "fd", FDName: "web"}},
		{"x=fd://app@1.socket", Address{Name: "x", Network: "fd", FDName: "app@1.socket"}},
		{"unknown=fd://unknown", Address{Name: "unknown", Network: "fd", FDName: "unknown"}},
		{"web=:80", Address{Name: "web", Network: "tcp", Port: 80}},
		{"a.b-c_D9=tcp://:80", Address{Name: "a.b-c_D9", Network: "tcp", Port: 80}},
		{":80?backlog=10&v6only=1&reuseport=1&nonblock=1&defer=5", Address{Network: "tcp", Port: 80,
			Options: Options{Backlog: 10, V6Only: On, ReusePort: true, NonBlock: On, Defer: 5 * time.Second}}},
		{":80?reuseport&nonblock&v6only", Address{Network: "tcp", Port: 80,
			Options: Options{V6Only: On, ReusePort: true, NonBlock: On}}},
		{":80?nonblock=0", Address{Network: "tcp", Port: 80, Options: Options{NonBlock: Off}}},
		{"tcp6://:80?v6only=0", Address{Network: "tcp6", Port: 80, Options: Options{V6Only: Off}}},
		{"x=/run/s?mode=0660&user=www&group=33", Address{Name: "x", Network: "unix", Path: "/run/s",
			Options: Options{Mode: 0o660, User: "www", Group: "33"}}},
	}
	for _, test := range tests {
		t.Run(test.uri, func(t *testing.T) {
			got, err := ParseAddress(test.uri)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
			again, err := ParseAddress(got.String())
			if err != nil || again != got {
				t.Errorf("%s parses to %+v, %v", got, again, err)
			}
		})
	}
}

func TestParseAddressErrors(t *testing.T) {
	tests := []struct{ uri, want string }{
		{"", "path is missing"},
		{"8080", "write ./8080 for a file, :8080 for a port"},
		{"true", "write ./true for a file, true:8080 for a port"},
		{"web=localhost?backlog=5", "write ./localhost for a file, localhost:8080 for a port"},
		{"a b=:80", `name "a b" must be`},
		{"=:80", `name "" must be`},
		{strings.Repeat("n", 65) + "=:80", "must be 1 to 64"},
		{"http://:80", `unknown scheme "http": use one of tcp, tcp4`},
		{"TCP://:80", `unknown scheme "TCP"`},
		{"unix:/run/a", "write unix://path"},
		{"/run/a:b", "write unix://path"},
		{"unix://", "path is missing"},
		{"unix://@", "abstract name is missing"},
		{"/" + strings.Repeat("x", 107), "has 108 bytes, and a unix socket's can have 107"},
		{"unix://a\x00b", "zero byte"},
		{"fd://", `descriptor "" must be a number or an inherited name`},
		{"fd://-1", `descriptor "-1" must be a number or an inherited name`},
		{"fd://2147483648", `descriptor "2147483648" must be a number or an inherited name`},
		{"fd://99999999999999999999", `must be a number or an inherited name`},
		{"fd://a:b", `descriptor "a:b" must be a number or an inherited name`},
		{"fd://\x80", `must be a number or an inherited name`},
		{"tcp://127.0.0.1", "must be host:port"},
		{"::1:80", "must be host:port"},
		{":http", `port "http" must be a number from 0 to 65535`},
		{":65536", `port "65536"`},
		{":-1", `port "-1"`},
		{":", `port ""`},
		{"tcp://:80/", `port "80/"`},
		{"example.com:80", `host "example.com" must be a literal address`},
		{"*:80", `host "*" must be a literal address, localhost, or empty`},
		{"tcp6://127.0.0.1:80", "write tcp4://"},
		{"udp4://[::1]:80", "write udp6://"},
		{"[::ffff:127.0.0.1]:80", "write 127.0.0.1"},
		{":80?", `unknown option ""`},
		{":80?color=red", `unknown option "color": use one of backlog, v6only`},
		{":80?backlog", `option "backlog" needs a value: write backlog=value`},
		{":80?backlog=", `option backlog="" must be a number`},
		{":80?backlog=0", `option backlog="0" must be a number from 1`},
		{":80?backlog=4294967297", `option backlog=`},
		{":80?backlog=1&backlog=2", `option "backlog" is given twice`},
		{":80?v6only=maybe", `option v6only="maybe" must be 1 or 0`},
		{":80?defer=1s", `option defer="1s" must be a number`},
		{"/s?mode=rw", `option mode="rw" must be octal`},
		{"/s?mode=0", "must be octal, from 0001"},
		{"/s?mode=01777", "to 0777"},
		{"/s?user=", `option user="" must be a name or a number`},
		{":80?mode=0600", `option "mode" is not for tcp`},
		{"unixgram:///s?backlog=1", `option "backlog" is not for unixgram`},
		{"/s?reuseport", `option "reuseport" is not for unix`},
		{"@s?mode=0600", "not for an abstract socket"},
		{"udp://:1?defer=1", `option "defer" is not for udp`},
		{"tcp4://:80?v6only=0", "not for IPv4"},
		{"127.0.0.1:80?v6only", "not for IPv4"},
		{"fd://3?nonblock", "not for an inherited descriptor"},
	}
	for _, test := range tests {
		t.Run(test.uri, func(t *testing.T) {
			got, err := ParseAddress(test.uri)
			if err == nil || !strings.Contains(err.Error(), test.want) || got != (Address{}) {
				t.Errorf("ParseAddress = %v, %v; want an error with %q", got, err, test.want)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		":8080", "web=127.0.0.1:80?backlog=1&defer=3", "tcp6://[fe80::1%a=b]:1?v6only=0", "./a=b?mode=0660&user=x=y&group=1",
		"unix://@x", "unixpacket://a:b", "unixgram://a@b", "fd://3", "n=fd://007", "udp://localhost:0?reuseport&nonblock=t",
		"unix:///a://b", "=", "?", "[::]:", "a=?mode=7", "unknown=:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		address, err := ParseAddress(uri)
		if err != nil {
			return
		}
		again, err := ParseAddress(address.String())
		if err != nil || again != address {
			t.Errorf("%q is %+v, and its %q is %+v, %v", uri, address, address.String(), again, err)
		}
	})
}
