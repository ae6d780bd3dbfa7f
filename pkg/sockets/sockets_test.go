package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

// bindAll binds, and closes at the end of the test.
func bindAll(t *testing.T, uris ...string) *Set {
	t.Helper()
	set, err := Bind(parseAll(t, uris...), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

func parseAll(t *testing.T, uris ...string) (addresses []Address) {
	t.Helper()
	for _, uri := range uris {
		address, err := ParseAddress(uri)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, address)
	}
	return addresses
}

// shortDir is a directory whose paths fit into a socket's address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Some tests take permissions away.
		if err := errors.Join(os.Chmod(dir, 0o700), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func port(t *testing.T, s *Socket) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.Bound()[strings.Index(s.Bound(), "://")+3:])
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func socketOption(t *testing.T, fd int, o linux.SocketOption) int {
	t.Helper()
	value, err := linux.Option(fd, o)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func fcntl(t *testing.T, fd, command int) int {
	t.Helper()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(command), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return int(flags)
}

// What apps rely on, for each kind of socket.
func TestKernelProperties(t *testing.T) {
	const tcp, udp = syscall.IPPROTO_TCP, syscall.IPPROTO_UDP // MPTCP would be 262
	const none = -1
	dir := shortDir(t)
	tests := []struct {
		uri              string
		bound            string // what Bound begins with
		domain, protocol int
		v6only           int
		listens          bool
		nonblock         bool
	}{
		{":0", "tcp://[::]:", syscall.AF_INET6, tcp, 0, true, false},
		{"[::]:0", "tcp://[::]:", syscall.AF_INET6, tcp, 0, true, false},
		{":0?v6only", "tcp6://[::]:", syscall.AF_INET6, tcp, 1, true, false},
		{"127.0.0.1:0", "tcp4://127.0.0.1:", syscall.AF_INET, tcp, none, true, false},
		{"localhost:0", "tcp4://127.0.0.1:", syscall.AF_INET, tcp, none, true, false},
		// For one address the kernel sets IPV6_V6ONLY by itself (__inet6_bind in net/ipv6/af_inet6.c).
		{"[::1]:0", "tcp6://[::1]:", syscall.AF_INET6, tcp, 1, true, false},
		{"tcp4://:0", "tcp4://0.0.0.0:", syscall.AF_INET, tcp, none, true, false},
		{"tcp6://:0", "tcp6://[::]:", syscall.AF_INET6, tcp, 1, true, false},
		{"tcp6://localhost:0", "tcp6://[::1]:", syscall.AF_INET6, tcp, 1, true, false},
		{"tcp6://:0?v6only=0", "tcp://[::]:", syscall.AF_INET6, tcp, 0, true, false},
		{":0?nonblock", "tcp://[::]:", syscall.AF_INET6, tcp, 0, true, true},
		{"udp://:0", "udp://[::]:", syscall.AF_INET6, udp, 0, false, false},
		{"udp4://127.0.0.1:0", "udp4://127.0.0.1:", syscall.AF_INET, udp, none, false, false},
		{"udp6://[::1]:0?nonblock", "udp6://[::1]:", syscall.AF_INET6, udp, 1, false, true},
		{dir + "/a", "unix://" + dir + "/a", syscall.AF_UNIX, 0, none, true, false},
		{"unixpacket://" + dir + "/b", "unixpacket://" + dir + "/b", syscall.AF_UNIX, 0, none, true, false},
		{"unixgram://" + dir + "/c?nonblock", "unixgram://" + dir + "/c", syscall.AF_UNIX, 0, none, false, true},
		{"unix://@" + dir, "unix://@" + dir, syscall.AF_UNIX, 0, none, true, false},
	}
	for _, test := range tests {
		t.Run(test.uri, func(t *testing.T) {
			s := bindAll(t, test.uri).Sockets()[0]
			if !strings.HasPrefix(s.Bound(), test.bound) {
				t.Errorf("bound to %s, want %s", s.Bound(), test.bound)
			}
			if got := socketOption(t, s.FD(), linux.SocketDomain); got != test.domain {
				t.Errorf("domain %d, want %d", got, test.domain)
			}
			if got := socketOption(t, s.FD(), linux.SocketProtocol); got != test.protocol {
				t.Errorf("protocol %d, want %d", got, test.protocol)
			}
			if test.v6only != none && socketOption(t, s.FD(), linux.V6Only) != test.v6only {
				t.Errorf("v6only is not %d", test.v6only)
			}
			if got := socketOption(t, s.FD(), linux.AcceptConn) == 1; got != test.listens {
				t.Errorf("listening is %v", got)
			}
			if got := socketOption(t, s.FD(), linux.ReuseAddr) == 1; got != (test.protocol == tcp) {
				t.Errorf("SO_REUSEADDR is %v", got)
			}
			if got := fcntl(t, s.FD(), syscall.F_GETFL)&syscall.O_NONBLOCK != 0; got != test.nonblock {
				t.Errorf("O_NONBLOCK is %v", got)
			}
			if fcntl(t, s.FD(), syscall.F_GETFD) != syscall.FD_CLOEXEC {
				t.Error("the descriptor is not close-on-exec")
			}
		})
	}
}

func TestOptionsReachTheKernel(t *testing.T) {
	set := bindAll(t, "127.0.0.1:0?reuseport&defer=7&backlog=5", "127.0.0.1:0")
	with, without := set.Sockets()[0], set.Sockets()[1]
	if socketOption(t, with.FD(), linux.ReusePort) != 1 || socketOption(t, without.FD(), linux.ReusePort) != 0 {
		t.Error("SO_REUSEPORT does not follow the option")
	}
	// The kernel rounds up to a number of retransmissions (tcp(7)).
	if socketOption(t, with.FD(), linux.DeferAccept) < 7 || socketOption(t, without.FD(), linux.DeferAccept) != 0 {
		t.Error("TCP_DEFER_ACCEPT does not follow the option")
	}
	if _, limit, err := with.Queue(); limit != 5 || err != nil {
		t.Errorf("backlog=5 gives a limit of %d, %v", limit, err)
	}
	if _, limit, err := without.Queue(); int(limit) != somaxconn() || err != nil {
		t.Errorf("the default limit is %d, %v; want net.core.somaxconn", limit, err)
	}
}

func TestDualStackAcceptsBothFamilies(t *testing.T) {
	s := bindAll(t, ":0").Sockets()[0]
	for _, host := range []string{"127.0.0.1", "::1"} {
		client, err := net.Dial("tcp", net.JoinHostPort(host, port(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		accepted, _, err := syscall.Accept(s.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(accepted)
	}
	only4, only6 := bindAll(t, "tcp4://:0").Sockets()[0], bindAll(t, "tcp6://:0").Sockets()[0]
	for host, s := range map[string]*Socket{"::1": only4, "127.0.0.1": only6} {
		client, err := net.Dial("tcp", net.JoinHostPort(host, port(t, s)))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s answers at %s: %v", s.Bound(), host, err)
		}
		if err == nil {
			client.Close()
		}
	}
}

func TestSetKeepsOrderNamesAndAddresses(t *testing.T) {
	file := listener(t)
	uris := []string{"a=tcp://127.0.0.1:0", "b=" + fmt.Sprintf("fd://%d", file), "a=unix://@" + shortDir(t), "udp://127.0.0.1:0"}
	set := bindAll(t, uris...)
	var names []string
	for i, s := range set.Sockets() {
		names = append(names, s.Name())
		if s.Address().String() != uris[i] {
			t.Errorf("socket %d is %s, want %s", i, s.Address(), uris[i])
		}
	}
	if got := strings.Join(names, ":"); got != "a:b:a:unknown" {
		t.Errorf("names %s", got)
	}
}

func TestCloseClosesAndUnlinks(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	set, err := Bind(parseAll(t, path, "127.0.0.1:0"), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	tcp := set.Sockets()[1]
	for range 2 {
		if err := set.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is still there: %v", err)
	}
	if _, err := net.Dial("tcp4", "127.0.0.1:"+port(t, tcp)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port still answers: %v", err)
	}
	if tcp.FD() != -1 {
		t.Error("a closed socket still has a descriptor")
	}
	if _, _, err := tcp.Queue(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Queue after Close: %v", err)
	}
	if found := set.Tend(); len(found) > 0 {
		t.Errorf("Tend after Close: %v", found)
	}
}

func TestCloseLeavesForeignFiles(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"socket": func(path string) error {
			fd, err := linux.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM)
			if err != nil {
				return err
			}
			defer linux.Close(fd)
			return linux.BindUnix(fd, path)
		},
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "s")
			set := bindAll(t, path)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			if err := set.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the other's path is gone: %v", err)
			}
		})
	}
}

func TestBindIsAllOrNothing(t *testing.T) {
	dir := shortDir(t)
	taken := bindAll(t, "127.0.0.1:0", "udp://127.0.0.1:0", "@"+dir)
	for _, uri := range []string{
		"127.0.0.1:" + port(t, taken.Sockets()[0]),
		"udp://127.0.0.1:" + port(t, taken.Sockets()[1]),
		"@" + dir,
		dir,
		dir + "/none/s",
		dir + "/t?user=no-such-user",
		dir + "/t?group=4294967295",
		"192.0.2.1:0",
		"[fe80::1%no-such-link]:0",
		"fd://999",
	} {
		t.Run(uri, func(t *testing.T) {
			before := descriptors(t)
			set, err := Bind(parseAll(t, dir+"/s", "127.0.0.1:0", uri), logr.Discard())
			if err == nil {
				t.Fatal("it was bound", set.Close())
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
			if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestBindErrorsSayWhatToDo(t *testing.T) {
	dir := shortDir(t)
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := bindAll(t, "127.0.0.1:0", "udp://127.0.0.1:0", "@"+dir)
	tests := []struct{ uri, want string }{
		{"127.0.0.1:" + port(t, taken.Sockets()[0]), "another socket has this port"},
		{"udp://127.0.0.1:" + port(t, taken.Sockets()[1]), "another socket has this port"},
		{"@" + dir, "already served by a live process"},
		{dir + "/none/s", "directory " + dir + "/none does not exist: create it"},
		{dir + "/file/s", dir + "/file is not a directory"},
		{dir, "the path exists and is not a socket"},
		{dir + "/t?user=no-such-user", "option user: "},
		{dir + "/t?group=no-such-group", "option group: "},
		{dir + "/t?user=99999999999", `option user: "99999999999" is out of range`},
		{"192.0.2.1:0", "no interface here has this address"},
		{"fd://999", "no such descriptor is open"},
	}
	for _, test := range tests {
		t.Run(test.uri, func(t *testing.T) {
			set, err := Bind(parseAll(t, test.uri), logr.Discard())
			if err == nil {
				t.Fatal("it was bound", set.Close())
			}
			uri := parseAll(t, test.uri)[0].String()
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), uri) {
				t.Errorf("%v\ndoes not say %q about %s", err, test.want, uri)
			}
		})
	}
}

func TestRelisten(t *testing.T) {
	tests := []struct {
		uri       string
		app, want uint32 // the limit that the app sets, and what Relisten leaves
	}{
		{"127.0.0.1:0", 3, uint32(somaxconn())},
		{"127.0.0.1:0?backlog=10", 3, 10},
		{"127.0.0.1:0?backlog=10", 20, 10},
		{"[::1]:0?backlog=10", 10, 10},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s from %d", test.uri, test.app), func(t *testing.T) {
			set := bindAll(t, test.uri)
			s := set.Sockets()[0]
			if err := syscall.Listen(s.FD(), int(test.app)); err != nil {
				t.Fatal(err)
			}
			set.Tend()
			if err := set.Relisten(); err != nil {
				t.Fatal(err)
			}
			if _, limit, err := s.Queue(); limit != test.want || err != nil {
				t.Errorf("the limit is %d, %v; want %d", limit, err, test.want)
			}
		})
	}
	t.Run("only when smaller", func(t *testing.T) {
		set := bindAll(t, "127.0.0.1:0?backlog=10")
		s := set.Sockets()[0]
		for _, app := range []int{10, 20} {
			if err := syscall.Listen(s.FD(), app); err != nil {
				t.Fatal(err)
			}
			if found := set.Tend(); len(found) > 0 {
				t.Errorf("found %v", found)
			}
			if _, limit, _ := s.Queue(); int(limit) != app {
				t.Errorf("the app's limit %d became %d", app, limit)
			}
		}
	})
	t.Run("others", func(t *testing.T) {
		dir := shortDir(t)
		set := bindAll(t, dir+"/a?backlog=2", "unixgram://"+dir+"/b", "udp://127.0.0.1:0", fmt.Sprintf("fd://%d", listener(t)))
		if err := set.Relisten(); err != nil {
			t.Error(err)
		}
		inherited := set.Sockets()[3]
		if found := set.Tend(); len(found) > 0 {
			t.Errorf("found %v", found)
		}
		if _, limit, err := inherited.Queue(); limit != 1 || err != nil {
			t.Errorf("the inherited socket has a limit of %d, %v; want its own", limit, err)
		}
		for _, s := range set.Sockets()[:3] {
			if _, _, err := s.Queue(); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("queue of %s: %v", s.Bound(), err)
			}
		}
	})
}

func TestQueueCountsWaitingConnections(t *testing.T) {
	s := bindAll(t, "127.0.0.1:0").Sockets()[0]
	for want := range uint32(3) {
		if length, _, err := s.Queue(); length != want || err != nil {
			t.Errorf("%d wait, %v; want %d", length, err, want)
		}
		client, err := net.Dial("tcp4", "127.0.0.1:"+port(t, s))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		waitQueue(t, s, want+1)
	}
}

// waitQueue waits until n connections wait: connect returns before the listener has the last
// packet of the handshake.
func waitQueue(t *testing.T, s *Socket, n uint32) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if length, _, err := s.Queue(); err != nil || length == n {
			return
		}
	}
	t.Errorf("there are never %d connections in the queue", n)
}

func TestQueueWhileClosing(t *testing.T) {
	set := bindAll(t, "127.0.0.1:0")
	s := set.Sockets()[0]
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				if _, _, err := s.Queue(); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	readers.Wait()
}

// listener returns a descriptor as a parent passes it: without FD_CLOEXEC. Its backlog is 1.
func listener(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestInherit(t *testing.T) {
	parents := listener(t)
	uri := fmt.Sprintf("fd://%d", parents)
	set := bindAll(t, "127.0.0.1:0", uri, uri)
	if len(set.Sockets()) != 3 {
		t.Fatal("not all are there")
	}
	for _, s := range set.Sockets()[1:] {
		if s.FD() <= parents {
			t.Errorf("descriptor %d: not a duplicate above %d", s.FD(), parents)
		}
		if fcntl(t, s.FD(), syscall.F_GETFD) != syscall.FD_CLOEXEC || fcntl(t, parents, syscall.F_GETFD) != syscall.FD_CLOEXEC {
			t.Error("a descriptor is not close-on-exec")
		}
		if fcntl(t, s.FD(), syscall.F_GETFL)&syscall.O_NONBLOCK == 0 {
			t.Error("O_NONBLOCK was changed")
		}
		if !strings.HasPrefix(s.Bound(), "tcp4://127.0.0.1:") {
			t.Errorf("bound to %s", s.Bound())
		}
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	if socketOption(t, parents, linux.AcceptConn) != 1 {
		t.Error("the parent's descriptor does not listen any more")
	}
}

func TestInheritLeavesThePath(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	parents := bindAll(t, path).Sockets()[0]
	set := bindAll(t, fmt.Sprintf("fd://%d", parents.FD()))
	if got := set.Sockets()[0].Bound(); got != "unix://"+path {
		t.Errorf("bound to %s", got)
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestInheritUnnamedSocket(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	uri := fmt.Sprintf("fd://%d", pair[0])
	if got := bindAll(t, uri).Sockets()[0].Bound(); got != uri {
		t.Errorf("bound to %s, want %s", got, uri)
	}
}

func TestInheritRefusesWhatIsNoSocket(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, err = Bind(parseAll(t, fmt.Sprintf("fd://%d", r.Fd())), logr.Discard())
	if err == nil || !strings.Contains(err.Error(), "the descriptor is not a socket") {
		t.Errorf("a pipe: %v", err)
	}
}

// A number that was not passed must not become one of the sockets that are made for other addresses.
func TestInheritNeverTakesAnOwnSocket(t *testing.T) {
	free, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0) // the lowest free number
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(free)
	_, err = Bind(parseAll(t, "127.0.0.1:0", fmt.Sprintf("fd://%d", free)), logr.Discard())
	if err == nil || !strings.Contains(err.Error(), "no such descriptor") {
		t.Errorf("fd://%d: %v", free, err)
	}
}

func TestBindLogsWhatWasBound(t *testing.T) {
	var lines []string
	log := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
	set, err := Bind(parseAll(t, "web=:0"), log)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	want := fmt.Sprintf(`"socket"="web" "address"="web=tcp://:0" "bound"="tcp://[::]:%s"`, port(t, set.Sockets()[0]))
	if got := strings.Join(lines, "\n"); !strings.Contains(got, want) {
		t.Errorf("the log has\n%s\nwant %s", got, want)
	}
}

func somaxconn() int { return sysctl("/proc/sys/net/core/somaxconn", 4096) }
