//go:build linux

package child

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// firstTestFD is far from the descriptors that tests open meanwhile.
const firstTestFD = 200

func TestAdopt(t *testing.T) {
	const pid = 42
	tests := []struct {
		name    string
		env     map[string]string
		sockets string // made from firstTestFD on: t tcp, x unix, u udp, - nothing
		names   string // of the listeners
		packets int
		err     string
	}{
		{name: "nothing"},
		{name: "no LISTEN_PID", env: map[string]string{"LISTEN_FDS": "1"}, sockets: "t", names: "LISTEN_FD_200"},
		{name: "own LISTEN_PID", env: map[string]string{"LISTEN_FDS": "1", "LISTEN_PID": "42"}, sockets: "t", names: "LISTEN_FD_200"},
		{name: "another's LISTEN_PID", env: map[string]string{"LISTEN_FDS": "1", "LISTEN_PID": "43"}, sockets: "t"},
		{name: "bad LISTEN_PID", env: map[string]string{"LISTEN_FDS": "1", "LISTEN_PID": "me"}, sockets: "t", err: `LISTEN_PID="me"`},
		{name: "bad LISTEN_FDS", env: map[string]string{"LISTEN_FDS": "many"}, err: `LISTEN_FDS="many"`},
		{name: "negative LISTEN_FDS", env: map[string]string{"LISTEN_FDS": "-1"}, err: `LISTEN_FDS="-1"`},
		{name: "names", env: map[string]string{"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:admin"}, sockets: "txt",
			names: "web admin LISTEN_FD_202"},
		{name: "datagrams", env: map[string]string{"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:dns:more"}, sockets: "tut",
			names: "web more", packets: 1},
		{name: "the descriptor is gone", env: map[string]string{"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"}, sockets: "t-",
			err: "socket 201 (admin)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			made := makeSockets(t, tt.sockets)
			s, err := adopt(func(key string) string { return tt.env[key] }, pid, firstTestFD)
			if got := fmt.Sprint(err); err != nil && (tt.err == "" || !strings.Contains(got, tt.err)) || err == nil && tt.err != "" {
				t.Fatalf("error is %v, want %q", err, tt.err)
			}
			if err != nil {
				return
			}
			names := strings.Fields(tt.names)
			if len(s.listeners) != len(names) || len(s.packets) != tt.packets {
				t.Fatalf("%d listeners and %d packet sockets", len(s.listeners), len(s.packets))
			}
			for i, name := range names {
				if s.named[name] != s.listeners[i] {
					t.Errorf("%q is not listener %d", name, i)
				}
				accepts(t, s.listeners[i])
				s.listeners[i].Close()
			}
			for _, conn := range s.packets {
				conn.Close()
			}
			for _, path := range made {
				if _, err := os.Lstat(path); err != nil {
					t.Error("Close has removed the path:", err)
				}
			}
		})
	}
}

// Nothing of the sockets is left after Close, and the original descriptor is gone before that.
func TestAdoptLeavesNoCopy(t *testing.T) {
	makeSockets(t, "t")
	s, err := adopt(func(key string) string { return map[string]string{"LISTEN_FDS": "1"}[key] }, 1, firstTestFD)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.GetsockoptInt(firstTestFD, syscall.SOL_SOCKET, syscall.SO_TYPE); err != syscall.EBADF {
		t.Errorf("the original descriptor: %v", err)
	}
	address := s.listeners[0].Addr()
	s.listeners[0].Close()
	if conn, err := net.Dial(address.Network(), address.String()); err == nil {
		conn.Close()
		t.Error("somebody still listens")
	}
}

// This process was given nothing.
func TestListenWithoutCrank(t *testing.T) {
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepts(t, ln)
	if conns, err := PacketConns(); len(conns) != 0 || err != nil {
		t.Error(conns, err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	abstract := "@child-test-" + strconv.Itoa(os.Getpid())
	tests := []struct {
		name           string
		address        string // where somebody listens; "": on a descriptor
		socket, number string // NOTIFY_SOCKET and NOTIFY_FD; "fd" is that descriptor
		send           func() error
		want           string
		err            string
	}{
		{"path", path, path, "", Ready, "READY=1", ""},
		{"abstract", abstract, abstract, "", Stopping, "STOPPING=1", ""},
		{"descriptor", "", "", "fd", Ready, "READY=1", ""},
		{"both: the path", path, path, "fd", Ready, "READY=1", ""},
		{"both: the path is out of reach", "", path + "-gone", "fd", Ready, "READY=1", ""},
		{"status in one line", path, path, "", func() error { return Status("a\nREADY=1\x00\rb") }, "STATUS=a READY=1  b", ""},
		{"failed", path, path, "", func() error { return Failed("no database") }, "X_CRANK_FAILED=no database", ""},
		{"nobody", "", "", "", Ready, "", ""},
		{"gone", "", path + "-gone", "", Ready, "", "no such file"},
		{"not a number", "", "", "three", Ready, "", `NOTIFY_FD="three"`},
		{"not a socket", "", "", "0", Ready, "", "NOTIFY_FD=0"},
		{"closed", "", "", "999", Ready, "", "NOTIFY_FD=999"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			os.Remove(path)
			receiver, fd := notifyPair(t, tt.address)
			if tt.number == "fd" {
				tt.number = strconv.Itoa(fd)
			}
			t.Setenv("NOTIFY_SOCKET", tt.socket)
			t.Setenv("NOTIFY_FD", tt.number)
			err := tt.send()
			if tt.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error is %v, want %q", err, tt.err)
			}
			if tt.want == "" {
				return
			}
			buf := make([]byte, 100)
			receiver.SetReadDeadline(time.Now().Add(patience))
			if n, err := receiver.Read(buf); string(buf[:n]) != tt.want {
				t.Errorf("got %q (%v), want %q", buf[:n], err, tt.want)
			}
		})
	}
}

// notifyPair is a receiver at address, or else of a socketpair with the other end.
func notifyPair(t *testing.T, address string) (net.Conn, int) {
	t.Helper()
	if address != "" {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, -1
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(pair[0]), "receiver")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		syscall.Close(pair[1])
	})
	return conn, pair[1]
}

// makeSockets makes one listening socket per letter, and returns the paths of the unix ones.
func makeSockets(t *testing.T, kinds string) (paths []string) {
	t.Helper()
	for i, kind := range kinds {
		var file *os.File
		var err error
		switch kind {
		case 't':
			file, err = fileOf(net.Listen("tcp", "127.0.0.1:0"))
		case 'x':
			path := filepath.Join(t.TempDir(), "s")
			paths = append(paths, path)
			var ln *net.UnixListener
			if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path}); err == nil {
				ln.SetUnlinkOnClose(false)
				file, err = fileOf(ln, nil)
			}
		case 'u':
			file, err = fileOf(net.ListenPacket("udp", "127.0.0.1:0"))
		case '-':
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		fd := firstTestFD + i
		if err := syscall.Dup3(int(file.Fd()), fd, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
	}
	return paths
}

// fileOf closes the socket and keeps a duplicate.
func fileOf(socket any, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	s := socket.(interface {
		File() (*os.File, error)
		Close() error
	})
	defer s.Close()
	return s.File()
}

func accepts(t *testing.T, ln net.Listener) {
	t.Helper()
	c := dial(t, ln.Addr())
	defer c.conn.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
