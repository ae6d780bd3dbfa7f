package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/guard"
)

// patience is how long something may take that should happen at once, on a busy machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv("APP_UNDER_TEST") != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(guard.Main(m))
}

// Apps that end by themselves.
func TestEnds(t *testing.T) {
	tests := []struct {
		name   string
		args   string
		env    string
		end    string
		stderr string
	}{
		{name: "exit", args: "-exit 3", end: "exit status 3"},
		{name: "exit 0", args: "-exit 0", end: "exit status 0"},
		{name: "exit later, with stderr", args: "-exit 4 -exit-after 1ms -stderr oops", end: "exit status 4", stderr: "oops\n"},
		{name: "exit when settling", args: "-exit 5 -exit-when-settling", end: "exit status 5"},
		{name: "from the environment", env: "APP_EXIT=6", end: "exit status 6"},
		{name: "a flag beats the environment", args: "-exit 7", env: "APP_EXIT=6", end: "exit status 7"},
		{name: "bad environment", env: "APP_EXIT=x", end: "exit status 2", stderr: "APP_EXIT"},
		{name: "bad flag", args: "-colour", end: "exit status 2", stderr: "colour"},
		{name: "nothing to serve on", args: "-serve http", end: "exit status 1", stderr: "-bind"},
		{name: "die", args: "-die KILL", end: "signal: killed"},
		{name: "die as a C program does", args: "-die SIGSEGV -die-after 1ms", end: "signal: segmentation fault"},
		{name: "die of 6", args: "-die 6", end: "signal: aborted"},
		{name: "die of nothing", args: "-die NOTHING", end: "exit status 2", stderr: "NOTHING"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := command("-serve none -notify socket " + tt.args)
			cmd.Env = append(cmd.Env, tt.env)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			cmd.Run()
			if got := strings.TrimSuffix(cmd.ProcessState.String(), " (core dumped)"); got != tt.end {
				t.Errorf("end is %q, want %q", got, tt.end)
			}
			if !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("stderr is %q, want %q", stderr.String(), tt.stderr)
			}
		})
	}
}

// What the app says to its supervisor, in order.
func TestSays(t *testing.T) {
	tests := []struct {
		name, args string
		fd         bool // on NOTIFY_FD
		want       []string
	}{
		{name: "ready", want: []string{"READY=1"}},
		{name: "later, with a status", args: "-ready-after 1ms -status warm", want: []string{"STATUS=warm", "READY=1"}},
		{name: "failed", args: "-fail why", want: []string{"X_CRANK_FAILED=why"}},
		{name: "errno", args: "-errno 13", want: []string{"ERRNO=13"}},
		{name: "on the descriptor", args: "-notify fd", fd: true, want: []string{"READY=1"}},
		{name: "as for s6", args: "-notify newline", fd: true, want: []string{"\n"}},
		{name: "never", args: "-never-ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := command("-serve none -print-env " + tt.args)
			receiver := notifications(t, cmd, tt.fd)
			p := startApp(t, cmd)
			p.expect(t, "APP_UNDER_TEST=") // from here on it has handlers
			for _, want := range tt.want {
				buf := make([]byte, 100)
				receiver.SetReadDeadline(time.Now().Add(patience))
				if n, err := receiver.Read(buf); string(buf[:n]) != want {
					t.Fatalf("it said %q (%v), want %q", buf[:n], err, want)
				}
			}
			p.terminate(t)
			if more := pending(t, receiver); more != "" {
				t.Errorf("it also said %q", more)
			}
		})
	}
}

// It drains on TERM, under a descriptor that was passed, and leaves that as it was.
func TestServes(t *testing.T) {
	for _, serve := range []string{"http", "echo"} {
		t.Run(serve, func(t *testing.T) {
			t.Parallel()
			ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			file, err := ln.File()
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			cmd := command("-print-fds -body hello -serve " + serve)
			cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
			cmd.ExtraFiles = []*os.File{file}
			p := startApp(t, cmd)
			p.expect(t, "fd 3 kind=socket ")
			p.expect(t, "serving "+ln.Addr().String())

			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			request := "GET /?delay=1ms HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
			want := map[string]string{"http": "HTTP/1.0 200 OK\r\n", "echo": "GET /?delay=1ms HTTP/1.0\r\n"}[serve]
			reader := bufio.NewReader(conn)
			io.WriteString(conn, request)
			if got, err := reader.ReadString('\n'); got != want {
				t.Errorf("the answer begins with %q (%v)", got, err)
			}
			conn.Close()
			p.terminate(t)
		})
	}
}

func TestIgnoresTerm(t *testing.T) {
	p := startApp(t, command("-serve none -ignore-term -print-signals -orphans 1 -orphans-setsid -orphan-life 100ms"))
	p.expect(t, "orphan ")
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGHUP} {
		if err := p.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.expect(t, fmt.Sprintf("signal %d", sig))
	}
	p.Process.Kill()
}

func TestEats(t *testing.T) {
	p := startApp(t, command("-serve none -notify fd -eat 3"))
	p.expect(t, "eaten 3")
	p.terminate(t)
}

func command(args string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", strings.Fields(args)...)
	cmd.Env = append(os.Environ(), "APP_UNDER_TEST=1", "GORACE=atexit_sleep_ms=0") // the detector waits 1 s otherwise
	return cmd
}

// notifications gives the app a place to say things, and returns the other end.
func notifications(t *testing.T, cmd *exec.Cmd, fd bool) net.Conn {
	t.Helper()
	if !fd {
		path := filepath.Join(t.TempDir(), "n")
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
		return conn
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	t.Cleanup(func() { theirs.Close() })
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(cmd.Env, "NOTIFY_FD=3")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// pending is what has arrived and was not read.
func pending(t *testing.T, conn net.Conn) string {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf, n := make([]byte, 100), 0
	raw.Control(func(fd uintptr) { n, _, _ = syscall.Recvfrom(int(fd), buf, syscall.MSG_DONTWAIT) })
	return string(buf[:max(n, 0)])
}

// app is one that runs.
type app struct {
	*exec.Cmd
	lines *bufio.Scanner
}

func startApp(t *testing.T, cmd *exec.Cmd) app {
	t.Helper()
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return app{cmd, bufio.NewScanner(stdout)}
}

// expect reads lines until one begins with prefix.
func (a app) expect(t *testing.T, prefix string) {
	t.Helper()
	for a.lines.Scan() {
		if strings.HasPrefix(a.lines.Text(), prefix) {
			return
		}
	}
	t.Fatalf("it ended without a line %q", prefix)
}

// terminate asks the app to end, which it does with code 0. It has handlers for TERM before it says
// anything at all.
func (a app) terminate(t *testing.T) {
	t.Helper()
	if err := a.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}
