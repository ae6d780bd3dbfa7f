package profile

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The sockets of the tests, as crank prints their addresses.
var (
	tcp4     = Socket{3, "tcp4://127.0.0.1:8080", "127.0.0.1"}
	tcp6     = Socket{4, "tcp6://[::1]:8080", "::1"}
	any4     = Socket{5, "tcp4://0.0.0.0:80", ""}
	anyBoth  = Socket{6, "tcp://[::]:80", ""}
	only6    = Socket{7, "tcp6://[::]:81", ""}
	path     = Socket{8, "unix:///run/app=1.sock", ""}
	abstract = Socket{9, "unix://@app", ""}
	udp      = Socket{10, "udp4://127.0.0.1:53", "127.0.0.1"}
	packets  = Socket{11, "unixpacket:///run/packets", ""}
	datagram = Socket{12, "unixgram:///run/datagrams", ""}
	other    = Socket{13, "fd://13", ""}
	named4   = Socket{14, "tcp4://0.0.0.0:82", "0.0.0.0"}
	named6   = Socket{15, "tcp://[::]:83", "::"}
	local    = Socket{16, "tcp4://127.0.0.1:84", "localhost"}
	local6   = Socket{17, "tcp6://[::1]:85", "localhost"}
	zone     = Socket{18, "tcp6://[fe80::1%eth0]:86", "fe80::1%eth0"}
	anyUDP   = Socket{19, "udp://[::]:54", ""}
	udp6     = Socket{20, "udp6://[::1]:55", "::1"}
	given    = Socket{21, "tcp4://127.0.0.1:87", ""} // inherited: it has no host
	all      = []Socket{tcp4, tcp6, any4, anyBoth, only6, path, abstract, udp, packets, datagram, other}
)

func TestEnviron(t *testing.T) {
	for _, test := range []struct {
		profile string
		sockets []Socket
		want    []string
	}{
		{"systemd", all, nil},
		{"none", all, nil},
		{"haproxy", all, nil},
		{"java", all, nil},

		{"nginx", []Socket{tcp4}, []string{"NGINX=3;"}},
		{"nginx", []Socket{tcp4, tcp6, path}, []string{"NGINX=3;4;8;"}},
		{"nginx", all, []string{"NGINX=3;4;5;6;7;8;9;10;"}},
		{"nginx", nil, nil},

		{"php-fpm", []Socket{tcp4}, []string{"FPM_SOCKETS=127.0.0.1:8080=3"}},
		{"php-fpm", []Socket{tcp6}, []string{"FPM_SOCKETS=::1:8080=4"}},
		{"php-fpm", []Socket{any4}, []string{"FPM_SOCKETS=0.0.0.0:80=5"}},
		{"php-fpm", []Socket{anyBoth}, []string{"FPM_SOCKETS=:::80=6"}},
		{"php-fpm", []Socket{path}, []string{"FPM_SOCKETS=/run/app=1.sock.fpm=8"}},
		{"php-fpm", []Socket{tcp4, only6, udp}, []string{"FPM_SOCKETS=127.0.0.1:8080=3,:::81=7"}},

		{"unicorn", []Socket{tcp4}, []string{"UNICORN_FD=3"}},
		{"unicorn", all, []string{"UNICORN_FD=3,4,5,6,7,8,9"}},
		{"unicorn", []Socket{udp}, nil},

		{"puma", []Socket{tcp4}, []string{"PUMA_INHERIT_0=3:tcp://127.0.0.1:8080"}},
		{"puma", []Socket{udp, tcp6, any4}, []string{"PUMA_INHERIT_0=4:tcp://[::1]:8080", "PUMA_INHERIT_1=5:tcp://0.0.0.0:80"}},
		{"puma", []Socket{anyBoth, path, abstract}, []string{"PUMA_INHERIT_0=6:tcp://[::]:80", "PUMA_INHERIT_1=8:unix:///run/app=1.sock", "PUMA_INHERIT_2=9:unix://@app"}},

		{"server-starter", []Socket{tcp4}, []string{"SERVER_STARTER_PORT=127.0.0.1:8080=3", "SERVER_STARTER_GENERATION=7"}},
		{"server-starter", []Socket{path, tcp6, any4, abstract, anyBoth, only6},
			[]string{"SERVER_STARTER_PORT=[::1]:8080=4;80=5;80=6;[::]:81=7;/run/app=1.sock=8;@app=9", "SERVER_STARTER_GENERATION=7"}},
		{"server-starter", []Socket{named4, named6, local, local6, zone, given},
			[]string{"SERVER_STARTER_PORT=0.0.0.0:82=14;[::]:83=15;localhost:84=16;localhost:85=17;[fe80::1%eth0]:86=18;127.0.0.1:87=21", "SERVER_STARTER_GENERATION=7"}},
		{"server-starter", []Socket{udp, anyUDP, udp6}, []string{"SERVER_STARTER_PORT=127.0.0.1:53=10;54=19;[::1]:55=20", "SERVER_STARTER_GENERATION=7"}},
		{"server-starter", []Socket{packets, datagram, other}, []string{"SERVER_STARTER_PORT=", "SERVER_STARTER_GENERATION=7"}},
		{"server-starter", nil, []string{"SERVER_STARTER_PORT=", "SERVER_STARTER_GENERATION=7"}},
	} {
		p, ok := Find(test.profile)
		if !ok {
			t.Fatalf("no profile %s", test.profile)
		}
		if diff := cmp.Diff(test.want, p.Environ(test.sockets, 7)); diff != "" {
			t.Errorf("%s, %v:\n%s", test.profile, test.sockets, diff)
		}
	}
}

func TestTable(t *testing.T) {
	if _, ok := Find(Default); !ok || Names()[0] != Default {
		t.Errorf("the default is not the first of %v", Names())
	}
	if _, ok := Find("help"); ok {
		t.Error("help is no profile")
	}
	seen := map[string]bool{}
	for _, p := range Profiles {
		if seen[p.Name] || p.Name == "" || p.Doc == "" || strings.HasSuffix(p.Doc, ".") {
			t.Errorf("a name twice, or no text: %q, %q", p.Name, p.Doc)
		}
		seen[p.Name] = true
		if p.Listen && len(p.Variables) > 0 {
			t.Errorf("%s passes the sockets in two ways", p.Name)
		}
		for _, entry := range p.Environ(all, 7) {
			if strings.ContainsAny(entry, "{}") {
				t.Errorf("%s: not all was filled in: %s", p.Name, entry)
			}
		}
	}
	for _, name := range []string{"nginx", "php-fpm", "haproxy", "unicorn", "puma", "server-starter", "java", "systemd", "none"} {
		if !slices.Contains(Names(), name) {
			t.Errorf("%s is missing", name)
		}
	}
}
