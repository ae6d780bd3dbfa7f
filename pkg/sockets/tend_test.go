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
)

// another returns a second descriptor of the same socket, as a generation of the app has one.
func another(t *testing.T, s *Socket) int {
	t.Helper()
	fd, err := linux.DuplicateFrom(s.FD(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { linux.Close(fd) })
	return fd
}

// wantRestored fails the test unless Tend restores exactly these things, and all is well afterwards.
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

// wantBroken fails the test unless Tend says so each time, and undoes nothing.
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

// exchange is one client: it connects, or sends a datagram that must arrive.
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
	// Loopback: it is there when sendto returns, or it is dropped.
	n, _, err := syscall.Recvfrom(s.FD(), make([]byte, 8), syscall.MSG_DONTWAIT)
	if err == nil && n != 1 {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

// TestListeningIsRestored: one copy of a socket was shut down, or disconnected, or made a client's, which is the end of all; the next client
// is served all the same, at the same port.
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

// free puts a free port in the place of PORT.
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

// TestBacklogIsRestored: an app that listens by itself changes the backlog for everybody. That of a unix socket is not to be seen, so it is
// tried whether clients find room.
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

// TestPeerIsRemoved: an app that connects a socket for datagrams deafens it for all clients but one.
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

// connectTo makes somebody else the peer of fd.
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

// TestPeerStaysWhereThePortWouldBeLost: a port that the kernel has chosen is given up with the peer.
func TestPeerStaysWhereThePortWouldBeLost(t *testing.T) {
	set := bindAll(t, "udp4://127.0.0.1:0")
	s := set.Sockets()[0]
	before := port(t, s)
	connectTo(t, another(t, s), true)
	wantBroken(t, set, "it would give up its port")
	if name, err := syscall.Getsockname(s.FD()); err != nil || fmt.Sprint(name.(*syscall.SockaddrInet4).Port) != before {
		t.Errorf("its name is %v, %v; it had port %s", name, err, before)
	}
	// The rule is there for this.
	if err := linux.Disconnect(s.FD()); err != nil {
		t.Fatal(err)
	}
	if name, err := syscall.Getsockname(s.FD()); err != nil || name.(*syscall.SockaddrInet4).Port != 0 {
		t.Errorf("it has port %v, %v: this kernel keeps it", name, err)
	}
}

// TestAddressIsRestored: the port that the kernel has chosen is given up with a disconnection, and the socket may be bound to another one.
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

// TestShutDownIsReported: nobody can revive these.
func TestShutDownIsReported(t *testing.T) {
	dir := shortDir(t)
	for i, uri := range []string{"udp4://127.0.0.1:0", "udp6://[::1]:0", dir + "/a", "unixgram://" + dir + "/b", "unixpacket://" + dir + "/c"} {
		for _, how := range []int{syscall.SHUT_RD, syscall.SHUT_RDWR} {
			t.Run(fmt.Sprint(uri, " ", how), func(t *testing.T) {
				set := bindAll(t, uri)
				fd := another(t, set.Sockets()[0])
				if err := syscall.Shutdown(fd, how); err != nil && !errors.Is(err, syscall.ENOTCONN) { // which does it all the same
					t.Fatal(err)
				}
				if err := exchange(t, set.Sockets()[0]); err == nil && i > 1 { // datagrams of UDP arrive, but nobody is woken for them
					t.Error("it works: this shows nothing")
				}
				wantBroken(t, set, "shut down for everybody")
			})
		}
	}
}

// TestInheritedAsItWas: what a parent passed was connected, shut down or listening on purpose.
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

// TestPath: whoever removes the path, it comes back, and leads to the same socket; what somebody else has put there stays.
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

// TestSecondName: it is hidden, it goes with the socket, and one that a crank has left that was killed is taken over.
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
	// One that crank alone serves needs none.
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

// TestForeignSecondName: what is not a socket that crank has left there stays, and it is said that there is no second name.
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

// TestPathUnderLoad: clients that find no path try again, and then find it.
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

// TestIPv6AddressStaysBehind: the kernel keeps the address of a peer that an IPv6 socket had, and hears no other. That is reported, and stays so.
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
		s.remoteSeen = time.Time{}
		wantBroken(t, set, "one IPv6 address only")
	}
}

// TestSilentFileSystem: a path that does not answer holds up nobody, and is reported in time.
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

// TestMadeAClient: what a listener shows of the connection that it was does not keep it broken.
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

// TestSmallerSomaxconn: a backlog that the kernel does not give any more is not restored for ever.
func TestSmallerSomaxconn(t *testing.T) {
	set := bindAll(t, "tcp4://127.0.0.1:0?backlog=10")
	s := set.Sockets()[0]
	s.limit = 20 // as if the limit of the kernel had been larger
	wantRestored(t, set, "its backlog was 10 instead of 20")
}

// TestFamiliesComeBack: while it is not bound, anybody can make a socket one for IPv6 alone.
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
