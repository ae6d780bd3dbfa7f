// Package shared tests real candidates and apps that damage the sockets of a real crank for all generations.
package shared

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/ports"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

const patience = 2 * time.Minute

var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin)) }

// crank is an instance with a socket of each kind. The test holds the sockets as well.
type crank struct {
	*instance.Instance
	t       *testing.T
	dir     string
	http    string
	sockets map[string]*socket
}

// socket is one of them.
type socket struct {
	number        int // in the app
	network, addr string
	fd            int // the test's own, of the same open file description
}

// numbers are the descriptors of the sockets in the app.
var numbers = map[string]int{"tcp": 3, "udp": 4, "ephemeral": 5, "unix": 6, "unixgram": 7, "unixpacket": 8}

func start(t *testing.T, app ...string) *crank {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // short: the path of a socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := ports.Unused()
	c := &crank{t: t, dir: dir, http: ports.Unused(), sockets: map[string]*socket{
		"tcp": {network: "tcp4"}, "udp": {network: "udp4", addr: "127.0.0.1:" + port}, "ephemeral": {network: "udp4"},
		"unix": {network: "unix", addr: dir + "/a"}, "unixgram": {network: "unixgram", addr: dir + "/b"}, "unixpacket": {network: "unixpacket", addr: dir + "/c"},
	}}
	flags := []string{"-name", "app", "-http", "127.0.0.1:" + c.http,
		"-bind", "udp=udp4://127.0.0.1:" + port, "-bind", "ephemeral=udp4://127.0.0.1:0",
		"-bind", "unix=unix://" + dir + "/a?backlog=64", "-bind", "unixgram=unixgram://" + dir + "/b", "-bind", "unixpacket=unixpacket://" + dir + "/c?backlog=64"}
	c.Instance = instance.Start(t, bin, flags, append([]string{"app", "-serve", "echo"}, app...)...)
	c.take()
	return c
}

// take gives the test a descriptor of each socket that crank holds (pidfd_getfd(2)).
func (c *crank) take() {
	c.t.Helper()
	pidfd, err := unix.PidfdOpen(c.PID(), 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.PID()))
	if err != nil {
		c.t.Fatal(err)
	}
	var info control.Info
	c.decode(&info, "info")
	for _, s := range info.Sockets {
		name := s.Name
		if name == "unknown" {
			name = "tcp"
		}
		_, addr, _ := strings.Cut(s.Bound, "://")
		c.sockets[name].addr, c.sockets[name].number, c.sockets[name].fd = addr, s.FD, -1
	}
	for _, e := range entries {
		var number int
		fmt.Sscan(e.Name(), &number)
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			continue
		}
		if s := c.find(fd); s != nil && s.fd < 0 {
			s.fd = fd
			c.t.Cleanup(func() { unix.Close(fd) })
			continue
		}
		unix.Close(fd)
	}
	for name, s := range c.sockets {
		if s.fd < 0 || s.number != numbers[name] {
			c.t.Fatalf("%s: %+v was not found", name, s)
		}
	}
}

// find returns the socket that a descriptor refers to.
func (c *crank) find(fd int) *socket {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil
	}
	kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	for _, s := range c.sockets {
		switch at := name.(type) {
		case *unix.SockaddrInet4:
			if fmt.Sprintf("127.0.0.1:%d", at.Port) == s.addr && (kind == unix.SOCK_STREAM) == (s.network == "tcp4") {
				return s
			}
		case *unix.SockaddrUnix:
			if at.Name == s.addr {
				return s
			}
		}
	}
	return nil
}

// look describes all that the test can see of a socket: it is unchanged if it looks the same.
func (s *socket) look() string {
	var text strings.Builder
	text.WriteString(s.flags())
	listens, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	fmt.Fprintf(&text, " listens %d %v", listens, err)
	buffer, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	fmt.Fprintf(&text, " buffer %d %v", buffer, err)
	timeout, err := unix.GetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO)
	fmt.Fprintf(&text, " timeout %v %v", *timeout, err)
	ttl, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MINTTL)
	fmt.Fprintf(&text, " ttl %d %v", ttl, err)
	peer, err := unix.Getpeername(s.fd)
	fmt.Fprintf(&text, " peer %v %v", peer, errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EINVAL))
	if s.network == "tcp4" {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		fmt.Fprintf(&text, " backlog %d %v", info.Sacked, err)
	}
	if filepath.IsAbs(s.addr) {
		info, err := os.Lstat(s.addr)
		if err == nil {
			fmt.Fprintf(&text, " path %v %v", info.Mode(), info.ModTime())
		} else {
			fmt.Fprintf(&text, " path %v", err)
		}
	}
	return text.String()
}

// serves is one client, which must get an answer.
func (s *socket) serves() error {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if s.network == "unixgram" {
		own := filepath.Join(filepath.Dir(s.addr), fmt.Sprint("client", time.Now().UnixNano()))
		dialer.LocalAddr = &net.UnixAddr{Name: own, Net: "unixgram"}
		defer os.Remove(own)
	}
	conn, err := dialer.Dial(s.network, s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 8))
	if err == nil && n != 1 {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

func (c *crank) decode(to any, verb ...string) {
	c.t.Helper()
	if err := json.Unmarshal(c.Crankctl(append(verb, "-o", "json")...), to); err != nil {
		c.t.Fatal(err)
	}
}

// current describes the current generation and its process.
func (c *crank) current() string {
	c.t.Helper()
	var info control.Info
	c.decode(&info, "info")
	if info.Current == nil {
		return "none"
	}
	return fmt.Sprintf("generation %d (pid %d)", info.Current.Generation, info.Current.PID)
}

// candidate runs a candidate, which must fail.
func (c *crank) candidate(args ...string) {
	c.t.Helper()
	if out, err := c.Try(append([]string{"run", "-wait", "--", "app", "-serve", "echo"}, args...)...); err == nil {
		c.t.Fatalf("the candidate did not fail: %s", out)
	}
}

// get requests a path from -http.
func (c *crank) get(path string) string {
	c.t.Helper()
	r, err := http.Get("http://127.0.0.1:" + c.http + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintln(r.StatusCode) + string(body)
}

// eventually fails the test unless wrong returns an empty string in time.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	said := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if said = wrong(); said == "" {
			return
		}
	}
	t.Fatal(said)
}

// isAsBefore waits until a socket is as before, and checks that the same process serves its clients.
func (c *crank) isAsBefore(name, before, current string) {
	c.t.Helper()
	s := c.sockets[name]
	eventually(c.t, func() string {
		if now := s.look(); now != before {
			return fmt.Sprintf("it is  %s\nit was %s", now, before)
		}
		return ""
	})
	if err := s.serves(); err != nil {
		c.t.Errorf("a client of %s: %v", s.addr, err)
	}
	if now := c.current(); now != current {
		c.t.Errorf("%s serves, want %s", now, current)
	}
}

// everything lists each kind of damage that can be undone, and the sockets it is done to.
var everything = []struct {
	what    string
	sockets []string
}{
	{"listen", []string{"tcp", "unix", "unixpacket"}},
	{"unlink", []string{"unix", "unixgram", "unixpacket"}},
	{"chmod", []string{"unix", "unixgram", "unixpacket"}},
	{"connect", []string{"udp", "unixgram"}},
	{"shutdown", []string{"tcp"}},
	{"flags", []string{"tcp", "udp", "unix", "unixgram"}},
	{"timeout", []string{"tcp", "udp", "unix"}},
	{"buffer", []string{"tcp", "udp", "unix"}},
	{"minttl", []string{"tcp", "udp"}},
	{"filter", []string{"tcp", "udp", "unixgram"}},
}

// needsCapability reports whether this is what Linux 6.18 lets only root do to a TCP socket: as any other user the candidate would do nothing.
func needsCapability(what, name string) bool {
	return what == "filter" && name == "tcp" && !root.Full()
}

// TestCandidate: what a failed candidate did is undone, and the current generation does not notice. Each kind of damage is done twice: by a
// candidate that exits immediately, and by one that is aborted, and still running when it fails.
func TestCandidate(t *testing.T) {
	c := start(t)
	current := c.current()
	for _, e := range everything {
		for _, name := range e.sockets {
			t.Run(e.what+" "+name, func(t *testing.T) {
				if needsCapability(e.what, name) {
					t.Skip("NOT TESTED: a filter on a TCP socket: only root can attach it")
				}
				c.t = t
				before := c.sockets[name].look()
				what := fmt.Sprintf("%s@%d", e.what, numbers[name])
				c.candidate("-damage", what, "-exit", "3")
				c.isAsBefore(name, before, current)
				c.hasRoom(name)

				c.candidate("-damage", what, "-fail", "out of order", "-drain", "1s")
				c.isAsBefore(name, before, current)
				c.hasRoom(name)
				if ready := c.get("/readyz"); !strings.HasPrefix(ready, "200") {
					t.Errorf("crank is not ready: %s", ready)
				}
			})
		}
	}
	if metrics := c.get("/metrics"); !strings.Contains(metrics, "crank_listener_broken{listener=\"unix\"} 0") || strings.Contains(metrics, "crank_listener_restored_total{listener=\"unix\"} 0\n") {
		t.Errorf("the metrics do not show it:\n%s", metrics)
	}
	if log := c.Log(); !strings.Contains(log, `"level":"WARN","msg":"shared socket restored"`) {
		t.Error("the log does not show it")
	}
}

// TestStandardDescriptors: stdout is shared as well.
func TestStandardDescriptors(t *testing.T) {
	c := start(t)
	pidfd, err := unix.PidfdOpen(c.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	stdout, err := unix.PidfdGetfd(pidfd, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stdout)
	before := (&socket{fd: stdout}).flags()
	c.candidate("-damage", "flags@1", "-exit", "3")
	eventually(t, func() string {
		if now := (&socket{fd: stdout}).flags(); now != before {
			return fmt.Sprintf("%s, before %s", now, before)
		}
		return ""
	})
	if log := c.Log(); !strings.Contains(log, `"msg":"shared descriptor restored"`) {
		t.Error("the log does not show it")
	}
}

func (s *socket) flags() string {
	flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
	return fmt.Sprintf("flags %#o %v", flags, err)
}

// hasRoom checks, with the app stopped, that the queue of a unix socket is as long as it was bound. The backlog of such a
// socket cannot be read.
func (c *crank) hasRoom(name string) {
	c.t.Helper()
	kind := map[string]int{"unix": unix.SOCK_STREAM, "unixpacket": unix.SOCK_SEQPACKET}[name]
	if kind == 0 {
		return
	}
	eventually(c.t, func() string {
		var info control.Info
		c.decode(&info, "info")
		unix.Kill(info.Current.PID, unix.SIGSTOP)
		defer unix.Kill(info.Current.PID, unix.SIGCONT)
		for i := range 60 {
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err.Error()
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: c.sockets[name].addr}); err != nil {
				return fmt.Sprintf("client %d of 60: %v", i, err)
			}
		}
		return ""
	})
}

// TestApp: what the current generation itself does is undone if it breaks an invariant, and is kept otherwise.
func TestApp(t *testing.T) {
	for _, e := range everything {
		for _, name := range e.sockets {
			invariant := e.what == "listen" || e.what == "unlink" || e.what == "connect" || e.what == "shutdown"
			if !invariant && e.what != "flags" && e.what != "timeout" {
				continue
			}
			t.Run(e.what+" "+name, func(t *testing.T) {
				t.Parallel()
				c := start(t)
				before := c.sockets[name].look()
				args := []string{"run", "-wait", "--", "app", "-serve", "echo", "-damage", fmt.Sprintf("%s@%d", e.what, numbers[name])}
				c.Crankctl(append(args, "-damage-at", "ready")...)
				c.Crankctl("wait", "-idle")
				if invariant {
					c.isAsBefore(name, before, c.current())
					c.hasRoom(name)
					return
				}
				own := c.sockets[name].look()
				if own == before {
					t.Error("the app changed nothing: this proves nothing")
				}
				c.candidate("-exit", "3") // it fails, but did not change the socket
				if now := c.sockets[name].look(); now != own {
					t.Errorf("it is  %s\nit was %s", now, own)
				}
			})
		}
	}
}

// TestUntilKilled: a failed candidate that keeps damaging the path until it is killed leaves the mode of the path as it was.
func TestUntilKilled(t *testing.T) {
	c := start(t)
	before, current := c.sockets["unix"].look(), c.current()
	c.candidate("-damage", fmt.Sprint("chmod-loop@", numbers["unix"]), "-fail", "out of order", "-ignore-term")
	c.Crankctl("wait", "-idle")
	c.isAsBefore("unix", before, current)
}

// TestLaterSnapshot: what a candidate changes after it failed does not become what crank puts back when the next one fails as well.
func TestLaterSnapshot(t *testing.T) {
	c := start(t)
	before, current := c.sockets["tcp"].look(), c.current()
	order, done := filepath.Join(c.dir, "order"), filepath.Join(c.dir, "done")
	c.candidate("-damage", fmt.Sprint("flags@", numbers["tcp"]), "-order", "damage", "-order-when", order, "-damage-at", "order", "-damage-done", done,
		"-fail", "out of order", "-ignore-term")
	if err := os.WriteFile(order, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if _, err := os.Stat(done); err != nil {
			return err.Error()
		}
		return ""
	})
	c.candidate("-exit", "3")
	c.isAsBefore("tcp", before, current)
}

// TestOldOneCleansUp: an old generation removes the path when it shuts down cleanly, as Python's asyncio has done since 3.13.
func TestOldOneCleansUp(t *testing.T) {
	for _, name := range []string{"unix", "unixgram", "unixpacket"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, "-damage", fmt.Sprint("unlink@", numbers[name]), "-damage-at", "end")
			before := c.sockets[name].look()
			c.Crankctl("run", "-wait", "--", "app", "-serve", "echo")
			c.Crankctl("wait", "-idle")
			c.isAsBefore(name, before, c.current())
		})
	}
}

// TestReported: damage that cannot be undone is reported everywhere, and crank is not ready.
func TestReported(t *testing.T) {
	for _, e := range []struct {
		what, name, reason string
		lines              int // of the log
	}{
		{"shutdown", "unix", "it was shut down for everybody", 1},
		{"shutdown", "unixgram", "it was shut down for everybody", 1},
		{"shutdown", "udp", "it was shut down for everybody", 1},
		{"connect", "ephemeral", "it had a peer", 1},
		{"replace", "unix", "its path was taken", 1},
		{"lock-filter", "udp", "SO_LOCK_FILTER was changed", 2}, // the other line is for the filter
	} {
		t.Run(e.what+" "+e.name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			current, s := c.current(), c.sockets[e.name]
			before := s.look()
			c.candidate("-damage", fmt.Sprintf("%s@%d", e.what, numbers[e.name]), "-exit", "3")
			if now := c.current(); now != current {
				t.Errorf("%s serves, want %s", now, current)
			}
			eventually(t, func() string {
				if ready := c.get("/readyz"); !strings.HasPrefix(ready, "503") || !strings.Contains(ready, e.reason) {
					return "readyz: " + ready
				}
				return ""
			})
			if out, err := c.Try("status"); err == nil || !strings.Contains(string(out), e.reason) {
				t.Errorf("status: %v, %s", err, out)
			}
			if metrics := c.get("/metrics"); !strings.Contains(metrics, fmt.Sprintf("crank_listener_broken{listener=%q} 1", e.name)) {
				t.Errorf("metrics:\n%s", metrics)
			}
			if log := c.Log(); strings.Count(log, `"level":"WARN","msg":"shared socket damaged; not ready"`) != e.lines {
				t.Errorf("want %d such lines in the log:\n%s", e.lines, log)
			}
			if e.what != "replace" {
				return
			}
			if content, err := os.ReadFile(s.addr); string(content) != "not a socket\n" {
				t.Errorf("the file that took the path was touched: %q, %v", content, err)
			}
			if err := os.Remove(s.addr); err != nil {
				t.Fatal(err)
			}
			c.Crankctl("wait", "-ready")
			c.isAsBefore(e.name, before, current)
		})
	}
}
