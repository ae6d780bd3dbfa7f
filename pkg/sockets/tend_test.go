package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/root"
)

// another returns a second descriptor of the same socket, such as a generation has.
func another(t *testing.T, s *Socket) int {
	t.Helper()
	fd, err := linux.DuplicateFrom(s.FD(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { linux.Close(fd) })
	return fd
}

// wantRestored fails the test unless Tend restores exactly these invariants, and all hold afterwards.
func wantRestored(t *testing.T, set *Set, want ...string) {
	t.Helper()
	found := set.Tend()
	for i, d := range found {
		if d.Err != nil || i >= len(want) || !strings.Contains(d.What, want[i]) {
			t.Errorf("found %v", d)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found %v, want %q", found, want)
	}
	if found := set.Tend(); len(found) > 0 || len(set.Broken()) > 0 {
		t.Errorf("afterwards: %v, broken: %v", found, set.Broken())
	}
}

// wantBroken fails the test unless Tend reports this every time, and undoes nothing.
func wantBroken(t *testing.T, set *Set, want string) {
	t.Helper()
	for range 2 {
		found := set.Tend()
		if len(found) != 1 || found[0].Err == nil || !strings.Contains(found[0].String(), want) {
			t.Errorf("found %v, want %q", found, want)
		}
		if broken := set.Broken(); len(broken) != 1 || broken[0].What != found[0].What {
			t.Errorf("broken: %v", broken)
		}
	}
}

// exchange is one client: it connects, or sends a datagram that has to arrive.
func exchange(t *testing.T, s *Socket) error {
	t.Helper()
	network, address, _ := strings.Cut(s.Bound(), "://")
	if s.Address().Path != "" {
		address = s.Address().Path
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !strings.HasPrefix(network, "udp") && network != "unixgram" {
		return nil
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	// On loopback it has arrived when sendto returns, or was dropped.
	n, _, err := syscall.Recvfrom(s.FD(), make([]byte, 8), syscall.MSG_DONTWAIT)
	if err == nil && n != 1 {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

// TestListeningIsRestored: shutting down, disconnecting or connecting one copy of a socket ends them all; the next client is served
// nevertheless, on the same port.
func TestListeningIsRestored(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, fd int) error{
		"shutdown":   func(_ *testing.T, fd int) error { return syscall.Shutdown(fd, syscall.SHUT_RD) },
		"both ways":  func(_ *testing.T, fd int) error { return syscall.Shutdown(fd, syscall.SHUT_RDWR) },
		"disconnect": func(_ *testing.T, fd int) error { return linux.Disconnect(fd) },
		"a client's": func(t *testing.T, fd int) error {
			server := bindAll(t, "tcp4://127.0.0.1:0").Sockets()[0]
			name, err := syscall.Getsockname(server.FD())
			return errors.Join(err, linux.Disconnect(fd), syscall.Connect(fd, name))
		},
	} {
		for _, uri := range []string{"tcp4://127.0.0.1:0", "tcp4://127.0.0.1:PORT?backlog=10"} {
			t.Run(name+" "+uri, func(t *testing.T) {
				set := bindAll(t, free(t, uri))
				s := set.Sockets()[0]
				limit := s.limit
				wantRestored(t, set)
				if err := end(t, another(t, s)); err != nil {
					t.Fatal(err)
				}
				if err := exchange(t, s); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("before: %v", err)
				}
				wantRestored(t, set, "did not listen")
				if err := exchange(t, s); err != nil {
					t.Errorf("after: %v", err)
				}
				if _, now, err := s.Queue(); now != limit || err != nil {
					t.Errorf("its limit is %d, %v; it was %d", now, err, limit)
				}
			})
		}
	}
}

// free replaces PORT with a free port.
func free(t *testing.T, uri string) string {
	t.Helper()
	if !strings.Contains(uri, "PORT") {
		return uri
	}
	network, _, _ := strings.Cut(uri, "://")
	set, err := Bind(parseAll(t, network+"://127.0.0.1:0"), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	number := port(t, set.Sockets()[0])
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(uri, "PORT", number, 1)
}

// TestBacklogIsRestored: an app that calls listen(2) changes the backlog of every process. That of a unix socket cannot be read, so clients
// try whether there is room.
func TestBacklogIsRestored(t *testing.T) {
	dir := shortDir(t)
	for _, uri := range []string{"tcp4://127.0.0.1:0", "tcp4://127.0.0.1:0?backlog=10", fmt.Sprintf("fd://%d", listener(t)), dir + "/a?backlog=10", "unixpacket://" + dir + "/b?backlog=10"} {
		t.Run(uri, func(t *testing.T) {
			set := bindAll(t, uri)
			s := set.Sockets()[0]
			if err := syscall.Listen(another(t, s), 0); err != nil {
				t.Fatal(err)
			}
			if s.isTCP() {
				wantRestored(t, set, "its backlog was 0")
				if _, limit, err := s.Queue(); limit != s.limit || err != nil {
					t.Errorf("the limit is %d, %v; want %d", limit, err, s.limit)
				}
				return
			}
			wantRestored(t, set)
			for i := range 10 {
				fd, err := linux.Socket(syscall.AF_UNIX, kind(s.Address())|syscall.SOCK_NONBLOCK)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { linux.Close(fd) })
				if err := linux.ConnectUnix(fd, s.Address().Path); err != nil {
					t.Fatalf("client %d: %v", i, err)
				}
			}
		})
	}
}

// TestPeerIsRemoved: an app that connects a datagram socket makes it deaf to all clients but one.
func TestPeerIsRemoved(t *testing.T) {
	for _, uri := range []string{"udp4://127.0.0.1:PORT", "unixgram://" + shortDir(t) + "/a"} {
		t.Run(uri, func(t *testing.T) {
			set := bindAll(t, free(t, uri))
			s := set.Sockets()[0]
			connectTo(t, another(t, s), strings.HasPrefix(uri, "udp"))
			if err := exchange(t, s); err == nil {
				t.Error("the peer does not keep others out: this shows nothing")
			}
			wantRestored(t, set, "had a peer")
			if err := exchange(t, s); err != nil {
				t.Error(err)
			}
		})
	}
}

// connectTo makes another socket the peer of fd.
func connectTo(t *testing.T, fd int, inet bool) {
	t.Helper()
	uri := "unixgram://" + shortDir(t) + "/peer"
	if inet {
		uri = "udp4://127.0.0.1:0"
	}
	name, err := syscall.Getsockname(bindAll(t, uri).Sockets()[0].FD())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, name); err != nil {
		t.Fatal(err)
	}
}

// TestPeerStaysWhereThePortWouldBeLost: a socket loses a port chosen by the kernel together with its peer.
func TestPeerStaysWhereThePortWouldBeLost(t *testing.T) {
	set := bindAll(t, "udp4://127.0.0.1:0")
	s := set.Sockets()[0]
	before := port(t, s)
	connectTo(t, another(t, s), true)
	wantBroken(t, set, "it would lose its port")
	if name, err := syscall.Getsockname(s.FD()); err != nil || fmt.Sprint(name.(*syscall.SockaddrInet4).Port) != before {
		t.Errorf("its name is %v, %v; it had port %s", name, err, before)
	}
	// The reason for the rule.
	if err := linux.Disconnect(s.FD()); err != nil {
		t.Fatal(err)
	}
	if name, err := syscall.Getsockname(s.FD()); err != nil || name.(*syscall.SockaddrInet4).Port != 0 {
		t.Errorf("it has port %v, %v: this kernel keeps it", name, err)
	}
}

// TestAddressIsRestored: a disconnected socket loses a port chosen by the kernel, and may be bound to another one.
func TestAddressIsRestored(t *testing.T) {
	set := bindAll(t, "udp4://127.0.0.1:0")
	s := set.Sockets()[0]
	if err := linux.Disconnect(another(t, s)); err != nil {
		t.Fatal(err)
	}
	if err := exchange(t, s); err == nil {
		t.Error("it still has its port: this shows nothing")
	}
	wantRestored(t, set, "it was bound to 127.0.0.1:0")
	if err := exchange(t, s); err != nil {
		t.Error(err)
	}
	set = bindAll(t, "udp4://127.0.0.1:0")
	s = set.Sockets()[0]
	if err := errors.Join(linux.Disconnect(s.FD()), syscall.Bind(s.FD(), &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})); err != nil {
		t.Fatal(err)
	}
	if got := set.Tend(); len(got) != 1 || got[0].Err == nil || len(set.Broken()) != 1 {
		t.Errorf("bound elsewhere: %v", got)
	}
}

// TestShutDownIsReported: the kernel cannot undo the shutdown of these.
func TestShutDownIsReported(t *testing.T) {
	dir := shortDir(t)
	for i, uri := range []string{"udp4://127.0.0.1:0", "udp6://[::1]:0", dir + "/a", "unixgram://" + dir + "/b", "unixpacket://" + dir + "/c"} {
		for _, how := range []int{syscall.SHUT_RD, syscall.SHUT_RDWR} {
			t.Run(fmt.Sprint(uri, " ", how), func(t *testing.T) {
				set := bindAll(t, uri)
				fd := another(t, set.Sockets()[0])
				if err := syscall.Shutdown(fd, how); err != nil && !errors.Is(err, syscall.ENOTCONN) { // ENOTCONN, but shut down nevertheless
					t.Fatal(err)
				}
				if err := exchange(t, set.Sockets()[0]); err == nil && i > 1 { // UDP datagrams arrive, but wake no reader
					t.Error("it works: this shows nothing")
				}
				wantBroken(t, set, "shut down for everybody")
			})
		}
	}
}

// TestInheritedAsItWas: an inherited socket is connected, shut down or listening on purpose.
func TestInheritedAsItWas(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer linux.Close(pair[0], pair[1])
	set := bindAll(t, fmt.Sprintf("fd://%d", pair[0]))
	wantRestored(t, set)
	if has, err := linux.HasPeer(set.Sockets()[0].FD()); !has || err != nil {
		t.Errorf("has a peer: %v, %v", has, err)
	}
}

// TestPath: a removed path is restored, and leads to the same socket; a foreign file at the path stays.
func TestPath(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			path := shortDir(t) + "/web.sock"
			set := bindAll(t, network+"://"+path)
			s := set.Sockets()[0]
			for range 3 {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				wantRestored(t, set, "path was removed")
				if err := exchange(t, s); err != nil {
					t.Error(err)
				}
			}
			// The second name as well.
			if err := os.Remove(s.spare); err != nil {
				t.Fatal(err)
			}
			wantRestored(t, set)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			wantRestored(t, set, "path was removed")

			if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
				t.Fatal(err)
			}
			wantBroken(t, set, "another file is there")
			if got, err := os.ReadFile(path); string(got) != "precious" || err != nil {
				t.Errorf("it was replaced: %q, %v", got, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			wantRestored(t, set, "path was removed")
			if err := errors.Join(os.Remove(path), os.Remove(s.spare)); err != nil {
				t.Fatal(err)
			}
			wantBroken(t, set, "no second name")
		})
	}
}

// TestSecondName: it is hidden, it is removed with the socket, and that of a crank that was killed is taken over.
func TestSecondName(t *testing.T) {
	dir := shortDir(t)
	path := dir + "/web.sock"
	names := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(entries)
	}
	set, err := Bind(parseAll(t, path), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "[S .web.sock.crank S web.sock]" {
		t.Errorf("in the directory: %s", got)
	}
	linux.Close(set.Sockets()[0].fd) // as by SIGKILL: both names stay
	set.Sockets()[0].fd = -1

	var log strings.Builder
	set, err = Bind(parseAll(t, path), funcr.New(func(_, args string) { log.WriteString(args + "\n") }, funcr.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "second name") {
		t.Errorf("it was not taken over: %s", log.String())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, set, "path was removed")
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	if got := names(); got != "[]" {
		t.Errorf("left in the directory: %s", got)
	}
	// crank's own sockets, which are not shared, have none.
	l, err := Listen(parseAll(t, path)[0], logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "[S web.sock]" {
		t.Errorf("in the directory: %s", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestForeignSecondName: a foreign file at the second name stays, and the log says that there is no second name.
func TestForeignSecondName(t *testing.T) {
	for name, put := range map[string]func(spare string) error{
		"file": func(spare string) error { return os.WriteFile(spare, []byte("precious"), 0o600) },
		"link": func(spare string) error { return os.Symlink("/etc/hostname", spare) },
		"dir":  func(spare string) error { return os.Mkdir(spare, 0o700) },
		"a socket": func(spare string) error {
			_, err := net.Listen("unix", spare)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := shortDir(t) + "/web.sock"
			if err := put(sparePath(path)); err != nil {
				t.Fatal(err)
			}
			was, err := os.Lstat(sparePath(path))
			if err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			set, err := Bind(parseAll(t, path), funcr.New(func(_, args string) { log.WriteString(args + "\n") }, funcr.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "no second name") {
				t.Errorf("nothing is said: %s", log.String())
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			wantBroken(t, set, "no second name")
			if err := set.Close(); err != nil {
				t.Error(err)
			}
			if now, err := os.Lstat(sparePath(path)); err != nil || !os.SameFile(was, now) {
				t.Errorf("%v was touched: %v", was.Name(), err)
			}
		})
	}
}

// TestPathUnderLoad: clients that find no path succeed when they retry.
func TestPathUnderLoad(t *testing.T) {
	path := shortDir(t) + "/web.sock"
	set := bindAll(t, path)
	stop := make(chan struct{})
	done := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			os.Remove(path)
			set.Tend()
			n++
		}
	}()
	for range 200 {
		for deadline := time.Now().Add(time.Minute); ; {
			fd, err := linux.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM)
			if err != nil {
				t.Fatal(err)
			}
			err = linux.ConnectUnix(fd, path)
			linux.Close(fd)
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.ENOENT) || time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		if conn, _, err := syscall.Accept(set.Sockets()[0].FD()); err == nil {
			linux.Close(conn)
		}
	}
	close(stop)
	t.Logf("removed and restored %d times", <-done)
}

// TestIPv6AddressStaysBehind: the kernel keeps the address of an IPv6 socket's former peer, and accepts datagrams from that address only.
// That is reported for as long as the socket lives.
func TestIPv6AddressStaysBehind(t *testing.T) {
	for _, disconnects := range []bool{false, true} {
		set := bindAll(t, "udp6://[::1]:"+strings.TrimPrefix(free(t, "udp4://127.0.0.1:PORT"), "udp4://127.0.0.1:"))
		s := set.Sockets()[0]
		wantRestored(t, set)
		peer, err := syscall.Getsockname(bindAll(t, "udp6://[::1]:0").Sockets()[0].FD())
		if err != nil {
			t.Fatal(err)
		}
		fd := another(t, s)
		if err := syscall.Connect(fd, peer); err != nil {
			t.Fatal(err)
		}
		if disconnects {
			if err := linux.Disconnect(fd); err != nil {
				t.Fatal(err)
			}
		} else if found := set.Tend(); len(found) != 1 || found[0].Err != nil {
			t.Errorf("found %v", found)
		}
		s.remoteRead = time.Time{}
		wantBroken(t, set, "one IPv6 address only")
	}
}

// TestSilentFileSystem: a path whose file system does not answer blocks nothing, and is reported after a while.
func TestSilentFileSystem(t *testing.T) {
	set := bindAll(t, shortDir(t)+"/a")
	s := set.Sockets()[0]
	release := make(chan struct{})
	s.mu.Lock()
	if _, over := s.patiently(func() seen { <-release; return seen{} }); over {
		t.Error("it is over")
	}
	s.mu.Unlock()
	if found := set.Tend(); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
	s.visit.began = s.visit.began.Add(-2 * pathDead)
	began := time.Now()
	for range 1000 {
		set.Tend()
	}
	if took := time.Since(began); took > pathPatience*500 {
		t.Errorf("it waits each time: %v", took)
	}
	wantBroken(t, set, "does not answer")
	close(release)
	for deadline := time.Now().Add(time.Minute); len(set.Broken()) > 0 && time.Now().Before(deadline); {
		set.Tend()
	}
	wantRestored(t, set)
}

// TestMadeAClient: traces of its connection do not make a restored listener count as broken.
func TestMadeAClient(t *testing.T) {
	set := bindAll(t, free(t, "tcp4://127.0.0.1:PORT"))
	s := set.Sockets()[0]
	snapshot := set.Snapshot()
	name, err := syscall.Getsockname(bindAll(t, "tcp4://127.0.0.1:0").Sockets()[0].FD())
	if err := errors.Join(err, linux.Disconnect(s.FD()), syscall.Connect(s.FD(), name)); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, set, "did not listen")
	set.PutBack(snapshot)
	wantRestored(t, set)
	if err := exchange(t, s); err != nil {
		t.Error(err)
	}
}

// TestRepair: a candidate with CAP_NET_ADMIN can leave a socket in repair mode (TCP_REPAIR) while it does not listen.
func TestRepair(t *testing.T) {
	root.Need(t)
	set := bindAll(t, free(t, "tcp4://127.0.0.1:PORT"))
	s := set.Sockets()[0]
	err := errors.Join(syscall.Shutdown(s.FD(), syscall.SHUT_RDWR), linux.SetOption(s.FD(), linux.Repair, 1))
	if errors.Is(err, syscall.EPERM) {
		t.Skip("NOT TESTED: a socket in repair mode: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	wantRestored(t, set, "did not listen")
	if err := exchange(t, s); err != nil {
		t.Error(err)
	}
	if repair, err := linux.Option(s.FD(), linux.Repair); repair != 0 || err != nil {
		t.Errorf("TCP_REPAIR is %d, %v", repair, err)
	}
}

// TestSmallerSomaxconn: a backlog that the kernel no longer grants is not restored forever.
func TestSmallerSomaxconn(t *testing.T) {
	set := bindAll(t, "tcp4://127.0.0.1:0?backlog=10")
	s := set.Sockets()[0]
	s.limit = 20 // as if the limit of the kernel had been larger
	wantRestored(t, set, "its backlog was 10 instead of 20")
}

// TestFamiliesComeBack: IPV6_V6ONLY can be set while a socket is not bound.
func TestFamiliesComeBack(t *testing.T) {
	set := bindAll(t, "tcp://[::]:0?v6only=0")
	s := set.Sockets()[0]
	if err := errors.Join(linux.Disconnect(s.FD()), linux.SetOption(s.FD(), linux.V6Only, 1)); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, set, "did not listen")
	if conn, err := net.Dial("tcp4", "127.0.0.1:"+port(t, s)); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}
