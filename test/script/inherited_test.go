package script

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/ports"
	"github.com/crankctl/crank/test/processes"
)

// The descriptors that the tests below pass to crank, by what they are.
var passable = map[string]func(*testing.T) *os.File{
	"tcp":         func(t *testing.T) *os.File { return listening(t, "tcp4", "127.0.0.1:0") },
	"unix":        func(t *testing.T) *os.File { return listening(t, "unix", filepath.Join(t.TempDir(), "s")) },
	"unixpacket":  func(t *testing.T) *os.File { return listening(t, "unixpacket", filepath.Join(t.TempDir(), "s")) },
	"udp":         datagrams,
	"bound":       func(t *testing.T) *os.File { return raw(t, syscall.AF_INET, syscall.SOCK_STREAM) },
	"connected":   func(t *testing.T) *os.File { return pair(t, syscall.SOCK_STREAM) },
	"packet pair": func(t *testing.T) *os.File { return pair(t, syscall.SOCK_SEQPACKET) },
	"gram pair":   func(t *testing.T) *os.File { return pair(t, syscall.SOCK_DGRAM) },
	"file":        func(t *testing.T) *os.File { return opened(t, os.Args[0]) },
	"fifo": func(t *testing.T) *os.File {
		path := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		return closedAtEnd(t, file, err)
	},
}

func listening(t *testing.T, network, address string) *os.File {
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	file, err := l.(interface{ File() (*os.File, error) }).File()
	return closedAtEnd(t, file, err)
}

func datagrams(t *testing.T) *os.File {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := c.(*net.UDPConn).File()
	return closedAtEnd(t, file, err)
}

func raw(t *testing.T, domain, kind int) *os.File {
	fd, err := syscall.Socket(domain, kind|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	return closedAtEnd(t, os.NewFile(uintptr(fd), "socket"), err)
}

func pair(t *testing.T, kind int) *os.File {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	closedAtEnd(t, os.NewFile(uintptr(fds[1]), "peer"), err)
	return closedAtEnd(t, os.NewFile(uintptr(fds[0]), "socket"), err)
}

func opened(t *testing.T, path string) *os.File {
	file, err := os.Open(path)
	return closedAtEnd(t, file, err)
}

func closedAtEnd(t *testing.T, file *os.File, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// passed runs a command to its end as a service manager does: with descriptors from 3 on and these variables, in which PID is the
// command's own.
func passed(t *testing.T, kinds string, variables, command []string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	script := ""
	for _, v := range variables {
		key, value, _ := strings.Cut(v, "=")
		script += "export " + key + "='" + strings.ReplaceAll(value, "PID", "'$$'") + "'; "
	}
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script + `exec "$@"`, "sh"}, command...)...)
	prefix, err := os.MkdirTemp("", "c") // short: the path of a socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(prefix)
	cmd.Env = processes.Environment("CRANK_PREFIX="+prefix, "CRANK_CTL=off", "CRANK_CONF=off", "CRANK_READY=none", "CRANK_LOG_FORMAT=text")
	for kind := range strings.SplitSeq(kinds, ",") {
		if kind != "" {
			cmd.ExtraFiles = append(cmd.ExtraFiles, passable[kind](t))
		}
	}
	var out, log strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

// TestInheritedSockets: inherited sockets keep their names, and none is dropped silently.
func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	ours := func(count, names string) []string {
		return []string{"LISTEN_PID=PID", "LISTEN_FDS=" + count, "LISTEN_FDNAMES=" + names}
	}
	for _, test := range []struct {
		name      string
		kinds     string
		variables []string
		binds     string
		code      int
		names     string // LISTEN_FDNAMES of the app
		stderr    string // has this; empty: no warning
	}{
		{"names are inherited", "tcp,udp", ours("2", "web:adm"), "fd://3 fd://4", 0, "web:adm", ""},
		{"in the order of -bind", "tcp,udp", ours("2", "web:adm"), "fd://4 fd://3", 0, "adm:web", ""},
		{"a name of -bind wins", "tcp,udp", ours("2", "web:adm"), "x=fd://3 unknown=fd://4", 0, "x:unknown", ""},
		{"no names", "tcp", []string{"LISTEN_PID=PID", "LISTEN_FDS=1"}, "fd://3", 0, "unknown", ""},
		{"names that only systemd allows", "tcp,tcp", ours("2", `crank@web.socket:a b\x2dc`), "fd://3 fd://4", 0, `crank@web.socket:a b\x2dc`, ""},
		{"an empty name", "tcp,tcp", ours("2", ":adm"), "fd://3 fd://4", 0, "unknown:adm", ""},
		{"by name", "tcp,udp", ours("2", "web:adm"), "fd://adm fd://web", 0, "adm:web", ""},
		{"by a name that only systemd allows", "tcp", ours("1", "crank@web.socket"), "fd://crank@web.socket", 0, "crank@web.socket", ""},
		{"several of one name", "tcp,udp,unix", ours("3", "web:adm:web"), "fd://web fd://adm", 0, "web:web:adm", ""},
		{"several under another name", "tcp,udp,unix", ours("3", "web:adm:web"), "x=fd://web fd://adm", 0, "x:x:adm", ""},
		{"by the name unknown", "tcp,tcp", []string{"LISTEN_PID=PID", "LISTEN_FDS=2"}, "fd://unknown", 0, "unknown:unknown", ""},
		{"with one of crank's own", "tcp", ours("1", "web"), "a=127.0.0.1:0 fd://web", 0, "a:web", ""},
		{"the same twice", "tcp", ours("1", "web"), "fd://web tls=fd://3", 0, "web:tls", ""},
		{"beyond LISTEN_FDS", "tcp,tcp", ours("1", "web"), "fd://web fd://4", 0, "web:unknown", ""},

		{"no such name", "tcp,tcp", ours("2", "web:adm"), "fd://wbe", 125, "", `cannot use fd://wbe: no inherited descriptor has this name: use one of web, adm`},
		{"no names at all", "tcp", nil, "fd://web", 125, "", `cannot use fd://web: LISTEN_FDS is not set`},
		{"a name of another process", "tcp", []string{"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web"}, "fd://web", 125, "", "cannot use fd://web: LISTEN_PID is 1, and crank is process "},
		{"a number of another process", "tcp", []string{"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web"}, "fd://3", 0, "unknown", `LISTEN_PID is 1, and crank is process `},
		{"a name of another process that is not needed", "tcp", []string{"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web"}, "x=fd://3", 0, "x", ""},
		{"LISTEN_PID is not set", "tcp", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=web"}, "fd://3", 0, "unknown", "LISTEN_PID is not set"},
		{"another LISTEN_PIDFDID", "tcp", append(ours("1", "web"), "LISTEN_PIDFDID=1"), "fd://3", 0, "unknown", "LISTEN_PIDFDID is 1, and crank's is "},
		{"too many names", "tcp", ours("1", "web:adm"), "fd://3", 0, "unknown", "LISTEN_FDNAMES has 2 names for 1 descriptors"},
		{"a name that systemd does not allow", "tcp", ours("1", "b\x01d"), "fd://3", 0, "unknown", `a name in LISTEN_FDNAMES is not valid: \"b\\x01d\"`},
		{"LISTEN_FDS is no number", "tcp", ours("many", "web"), "fd://3", 0, "unknown", `LISTEN_FDS is \"many\"`},
		{"LISTEN_FDS is huge", "tcp", ours("2000000000", ""), "fd://3", 0, "unknown", `LISTEN_FDS is \"2000000000\"`},

		{"LISTEN_FDS is no number, and no -bind", "tcp", ours("many", ""), "", 0, "", `LISTEN_FDS is \"many\"`},
		{"no -bind", "tcp,udp", ours("2", "web:adm"), "", 0, "", `sockets="web=fd://3 adm=fd://4"`},
		{"no -bind, of another process", "tcp", []string{"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web"}, "", 0, "", ""},
		{"one is not used", "tcp,udp,udp", ours("3", "web:adm:dns"), "fd://adm", 0, "adm", `sockets="web=fd://3 dns=fd://5"`},
		{"many are not used", "tcp", ours("60", ""), "127.0.0.1:0", 0, "unknown", `fd://10 and 52 more"`},

		{"TCP that does not listen", "bound", nil, "fd://3", 125, "", "cannot use fd://3: the socket does not listen: call listen(2) first, or set Accept=no in the systemd socket unit"},
		{"a connection", "connected", ours("1", "connection"), "fd://connection", 125, "", "cannot use connection=fd://3: the socket does not listen"},
		{"a connection of packets", "packet pair", nil, "fd://3", 125, "", "the socket does not listen"},
		{"listening packets", "unixpacket", nil, "fd://3", 0, "unknown", ""},
		{"datagrams do not listen", "gram pair", nil, "fd://3", 0, "unknown", ""},
		{"a file", "file", ours("1", "web"), "fd://web", 125, "", "cannot use web=fd://3: the descriptor is not a socket"},
		{"a FIFO", "fifo", nil, "fd://3", 125, "", "the descriptor is not a socket"},
		{"a closed one", "", nil, "fd://9", 125, "", "no such descriptor is open"},
		{"a closed one by name", "tcp", ours("9", "a:b:c:d:e:f:g:h:i"), "fd://i", 125, "", "cannot use i=fd://11: no such descriptor is open"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := linux.PidfdID(os.Getpid()); err != nil && slices.Contains(test.variables, "LISTEN_PIDFDID=1") {
				t.Skipf("NOT TESTED: LISTEN_PIDFDID: %v", err)
			}
			command := []string{"crank"}
			for bind := range strings.FieldsSeq(test.binds) {
				command = append(command, "-bind", bind)
			}
			code, stdout, stderr := passed(t, test.kinds, test.variables, append(command, "--", "env"))
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if names := variable(stdout, "LISTEN_FDNAMES"); names != test.names {
				t.Errorf("LISTEN_FDNAMES=%s, want %s", names, test.names)
			}
			if test.stderr == "" && strings.Contains(stderr, "level=WARN") || !strings.Contains(stderr, test.stderr) {
				t.Errorf("want %q on stderr", test.stderr)
			}
			if t.Failed() {
				t.Logf("stderr:\n%s", stderr)
			}
		})
	}
}

// variable is the value of a variable in the output of env(1).
func variable(output, key string) string {
	for line := range strings.Lines(output) {
		if value, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSuffix(value, "\n")
		}
	}
	return ""
}

// TestInheritedStdin: descriptors 0 to 2 are passed on by number, as inetd's are.
func TestInheritedStdin(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := passed(t, "tcp", nil, []string{"sh", "-c", `exec crank -bind web=fd://0 -- env <&3`})
	if names := variable(stdout, "LISTEN_FDNAMES"); code != 0 || names != "web" {
		t.Errorf("exit code %d, names %q\n%s", code, names, stderr)
	}
}

// TestInheritedFromCrank: an outer crank passes its sockets and their names, as systemd does.
func TestInheritedFromCrank(t *testing.T) {
	t.Parallel()
	outer := []string{"crank", "-bind", "web=127.0.0.1:0", "-bind", "adm=127.0.0.1:0"}
	code, stdout, stderr := passed(t, "", nil, append(outer, "--", "crank", "-ready", "none", "-bind", "fd://adm", "-bind", "fd://3", "--", "env"))
	if names := variable(stdout, "LISTEN_FDNAMES"); code != 0 || names != "adm:web" || strings.Contains(stderr, "level=WARN") {
		t.Errorf("exit code %d, names %q\n%s", code, names, stderr)
	}
	code, _, stderr = passed(t, "", nil, append(outer, "--", "crank", "-log-format", "json", "--", "env"))
	if want := `"sockets":"web=fd://3 adm=fd://4"`; code != 0 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, want 0 and %s\n%s", code, want, stderr)
	}
}

// TestSocketActivate: systemd's own program, with and without names.
func TestSocketActivate(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-socket-activate"); err != nil {
		t.Skip("NOT TESTED: systemd-socket-activate: it is not installed")
	}
	for _, test := range []struct{ name, fdname, binds, names, stderr string }{
		{"by number", "web:adm", "fd://3 fd://4", "web:adm", ""},
		{"by name", "web:adm", "fd://adm fd://web", "adm:web", ""},
		{"no names", "", "fd://3 fd://4", "unknown:unknown", ""},
		{"no -bind", "web:adm", "", "", `sockets="web=fd://3 adm=fd://4"`},
		{"one name for both", "web", "fd://web", "web:web", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			first := "127.0.0.1:" + ports.Unused()
			command := []string{"systemd-socket-activate", "-l", first, "-l", "127.0.0.1:" + ports.Unused()}
			if test.fdname != "" {
				command = append(command, "--fdname="+test.fdname)
			}
			for _, key := range []string{"PREFIX", "CTL", "CONF", "READY", "LOG_FORMAT"} {
				command = append(command, "-E", "CRANK_"+key)
			}
			command = append(command, "-E", "PATH", "crank")
			for bind := range strings.FieldsSeq(test.binds) {
				command = append(command, "-bind", bind)
			}
			done := make(chan struct{})
			defer close(done)
			go activate(first, done)
			code, stdout, stderr := passed(t, "", nil, slices.Concat(command, []string{"--", "env"}))
			if names := variable(stdout, "LISTEN_FDNAMES"); code != 0 || names != test.names || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit code %d, names %q, want %q and %q on stderr\n%s", code, names, test.names, test.stderr, stderr)
			}
		})
	}
}

// activate connects once somebody listens, which starts the program.
func activate(address string, done <-chan struct{}) {
	for {
		if conn, err := net.Dial("tcp4", address); err == nil {
			<-done
			conn.Close()
			return
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
