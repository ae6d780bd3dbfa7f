package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/listening"
	"github.com/crankctl/crank/test/leak"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// The test binary plays the apps, which have to be other processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "app" {
		fmt.Fprintln(os.Stderr, app(os.Args[2], len(os.Args) > 3))
		os.Exit(1)
	}
	os.Exit(leak.Main(m))
}

// soReuseport is SO_REUSEPORT, which package syscall has not.
const soReuseport = 0xf

// hidden is an optional argument of the app.
const hidden = "hidden"

// app serves on an address, which others may share, and prints it. If hidden, it lets no other process see its descriptors.
func app(address string, hidden bool) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if err2 := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReuseport, 1) }); err2 != nil {
			return err2
		}
		return err
	}}
	network, address, _ := strings.Cut(address, "://")
	l, err := config.Listen(context.Background(), network, address)
	if err != nil {
		return err
	}
	if hidden {
		if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
			return errno
		}
	}
	fmt.Println(l.Addr())
	go func() { // not longer than the test
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch code, _ := strconv.Atoi(strings.Trim(r.URL.Path, "/")); {
		case r.URL.Path == "/hang":
			<-r.Context().Done()
		case code >= 300 && code < 400:
			w.Header().Set("Location", "http://192.0.2.1/never")
			w.WriteHeader(code)
		case code > 0:
			w.WriteHeader(code)
		default:
			fmt.Fprintln(w, r.URL.RequestURI(), strings.Repeat("x", 1<<20))
		}
	}))
}

// startApp starts one, and returns its pid and its address. Its network is in the address.
func startApp(t *testing.T, address string, more ...string) (pid int, addr netip.AddrPort) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"app", address}, more...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	if addr, err = netip.ParseAddrPort(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, addr
}

// processes is what is known of the apps: the generation of each pid.
type processes map[int]int

func (p processes) Owner(pid int) int { return p[pid] }

func (p processes) Members(generation int) (pids []int) {
	for pid, owner := range p {
		if owner == generation {
			pids = append(pids, pid)
		}
	}
	return pids
}

// slot is the slot of all candidates here.
const slot = 2

// ask probes once.
func ask(t *testing.T, target string, timeout time.Duration, p Processes, generation, pid int) string {
	t.Helper()
	parsed, err := Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	New(parsed, timeout, p).Probe(generation, slot, pid, func(_ bool, err error) { result <- err })
	select {
	case err := <-result:
		if err != nil {
			return err.Error()
		}
		return "ready"
	case <-time.After(patience):
		t.Fatal("no result")
		return ""
	}
}

// want fails the test unless got is want, where "*" in it stands for anything.
func want(t *testing.T, got, want string) {
	t.Helper()
	before, after, open := strings.Cut(want, "*")
	matches := open && strings.HasPrefix(got, before) && strings.HasSuffix(got, after)
	if got != want && !matches {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestAnswers(t *testing.T) {
	pid, addr := startApp(t, "tcp4://127.0.0.1:0")
	who := processes{pid: 3}
	base := fmt.Sprintf("http://%v", addr)
	for path, result := range map[string]string{
		"": "ready", "/": "ready", "/?a=b": "ready", "/200": "ready", "/204": "ready", "/302": "ready", "/399": "ready",
		"/400": "answered 400", "/404": "answered 404", "/503": "answered 503",
	} {
		if result != "ready" {
			result = "GET " + base + path + " " + result
		}
		want(t, ask(t, base+path, patience, who, 3, pid), result)
	}
	want(t, ask(t, "tcp://"+addr.String(), patience, who, 3, pid), "ready")
	want(t, ask(t, base+"/hang", 100*time.Millisecond, who, 3, pid), "GET "+base+"/hang: no answer in 100ms (-ready-timeout)")
}

func TestPlaceholders(t *testing.T) {
	pid, addr := startApp(t, "tcp4://127.0.0.3:0")
	who := processes{pid: 3}
	target := fmt.Sprintf("http://127.0.0.{generation}:%d/4{generation}3?{pid}&{slot}", addr.Port())
	want(t, ask(t, target, patience, who, 3, pid), fmt.Sprintf("GET http://%v/433?%d&2 answered 433", addr, pid))
	want(t, ask(t, "tcp://127.0.0.{generation}:"+strconv.Itoa(int(addr.Port())), patience, who, 3, pid), "ready")
	pid, addr = startApp(t, "tcp4://127.0.0.2:0")
	want(t, ask(t, "tcp://127.0.0.{slot}:"+strconv.Itoa(int(addr.Port())), patience, processes{pid: 3}, 3, pid), "ready")
}

// TestNeverAnAddress: a candidate whose numbers make no valid address can never be probed.
func TestNeverAnAddress(t *testing.T) {
	for target, why := range map[string]string{
		"tcp://127.0.0.1:{pid}":             `want a port from 1 to 65535, not "70000"`,
		"http://127.0.0.1:{pid}/":           `want a port from 1 to 65535, not "70000"`,
		"http://127.0.0.1:810{generation}/": `want a port from 1 to 65535, not "810300"`,
		"http://127.0.0.{generation}:80/":   `want an address, not "127.0.0.300"`,
		"tcp://[fe80::{pid}]:80":            "*",
	} {
		parsed, err := Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		New(parsed, patience, processes{}).Probe(300, slot, 70000, func(final bool, err error) {
			if !final {
				t.Errorf("%s: %v is not final", target, err)
			}
			result <- err
		})
		want(t, (<-result).Error(), "-ready "+target+" is not valid for generation 300, slot 2, pid 70000: "+why+
			": use {slot}, which stays small, or a lower number")
	}
}

func TestNobodyAnswers(t *testing.T) {
	// Bound, so that nobody else takes it, and not listening.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	want(t, ask(t, "tcp://"+address, patience, processes{}, 1, os.Getpid()), "tcp://"+address+": connection refused")
	want(t, ask(t, "http://"+address+"/x", patience, processes{}, 1, os.Getpid()), "GET http://"+address+"/x: connection refused")
}

// TestNoHTTP: what is no HTTP, or hangs up, is a bad answer.
func TestNoHTTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for _, answer := range []string{"SSH-2.0-x\r\n", ""} {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			fmt.Fprint(conn, answer)
			conn.Close()
		}
	}()
	url := "http://" + l.Addr().String() + "/"
	if got := ask(t, url, patience, processes{}, 1, 1); !strings.Contains(got, "malformed HTTP response") {
		t.Errorf("got %q", got)
	}
	if got := ask(t, url, patience, processes{}, 1, 1); !strings.Contains(got, "EOF") && !strings.Contains(got, "reset") {
		t.Errorf("got %q", got)
	}
}

// TestWhoAnswers: what counts is whose process listens, not that somebody answers.
func TestWhoAnswers(t *testing.T) {
	for _, network := range []string{"tcp4://127.0.0.1:0", "tcp4://0.0.0.0:0", "tcp6://[::1]:0", "tcp6://[::]:0", "tcp://:0"} {
		t.Run(network, func(t *testing.T) {
			pid, addr := startApp(t, network)
			hosts := []string{"127.0.0.1", "localhost"}
			switch {
			case strings.HasPrefix(network, "tcp6"):
				hosts = []string{"[::1]"}
			case network == "tcp://:0":
				hosts = []string{"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost"}
			}
			for _, host := range hosts {
				target := fmt.Sprintf("tcp://%s:%d", host, addr.Port())
				want(t, ask(t, target, patience, processes{pid: 4}, 4, pid), "ready")
				want(t, ask(t, target, patience, processes{pid: 4, os.Getpid(): 4}, 4, os.Getpid()), "ready") // not its main process
				want(t, ask(t, target, patience, processes{pid: 3}, 4, os.Getpid()), target+" answered by generation 3, not the candidate")
				want(t, ask(t, target, patience, processes{}, 4, os.Getpid()), fmt.Sprintf("%s answered by pid %d, not the candidate", target, pid))
			}
		})
	}
}

// TestNeighbour: with SO_REUSEPORT the answer may be anybody's, so all who listen there have to be the candidate.
func TestNeighbour(t *testing.T) {
	old, addr := startApp(t, "tcp4://127.0.0.1:0")
	candidate, _ := startApp(t, "tcp4://"+addr.String())
	target := fmt.Sprintf("http://%v/", addr)
	want(t, ask(t, target, patience, processes{old: 3, candidate: 4}, 4, candidate), "GET "+target+" answered by generation 3, not the candidate")
	want(t, ask(t, target, patience, processes{old: 4, candidate: 4}, 4, candidate), "ready")
}

// TestSpecific: who is bound to the address itself answers, and not who is bound to all of them.
func TestSpecific(t *testing.T) {
	wildcard, addr := startApp(t, "tcp4://0.0.0.0:0")
	specific, _ := startApp(t, fmt.Sprintf("tcp4://127.0.0.2:%d", addr.Port()))
	who := processes{wildcard: 3, specific: 4}
	target := fmt.Sprintf("tcp://127.0.0.2:%d", addr.Port())
	want(t, ask(t, target, patience, who, 4, specific), "ready")
	want(t, ask(t, target, patience, who, 3, wildcard), target+" answered by generation 4, not the candidate")
	target = fmt.Sprintf("tcp://127.0.0.1:%d", addr.Port())
	want(t, ask(t, target, patience, who, 3, wildcard), "ready")
	want(t, ask(t, target, patience, who, 4, specific), target+" answered by generation 3, not the candidate")
}

// TestOwnSocket: this process is crank, and what it holds is no generation's alone.
func TestOwnSocket(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	target := "tcp" + strings.TrimPrefix(server.URL, "http")
	want(t, ask(t, target, patience, processes{os.Getpid(): 1}, 1, os.Getpid()), target+" answered on a socket of crank's own (-bind or -http), which says nothing of the candidate")
}

func TestCancel(t *testing.T) {
	pid, addr := startApp(t, "tcp4://127.0.0.1:0")
	target, err := Parse(fmt.Sprintf("http://%v/hang", addr))
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	cancel := New(target, patience, processes{pid: 1}).Probe(1, 0, pid, func(_ bool, err error) { result <- err })
	cancel()
	if err := <-result; err == nil {
		t.Error("a probe that was cancelled has succeeded")
	}
	cancel() // it may come late
}

// TestUnreadable: descriptors that cannot be read prove nothing, and the answer says what to do.
func TestUnreadable(t *testing.T) {
	pid, _ := startApp(t, "tcp4://127.0.0.1:0", hidden)
	err := New(Target{}, patience, processes{}).blame(1, 4, os.ErrPermission)
	want(t, err.Error(), "cannot see whether the candidate has answered: permission denied: it runs as another user or hides itself; *")
	err = New(Target{}, patience, processes{}).blame(1, 4, nil)
	want(t, err.Error(), "answered by a process outside of crank")
	if unreadable := asSomebodyElse(t, func() error {
		_, unreadable := listening.Holds([]int{pid}, []uint64{1})
		return unreadable
	}); unreadable == nil {
		t.Error("the app's descriptors can be read")
	}
}

// asSomebodyElse runs look where it may not read the descriptors of the apps, and returns its result. The apps are not dumpable, so
// no other process may, not even one of the same user (proc(5), ptrace(2)). Root may, so it runs look on a thread of another user.
func asSomebodyElse(t *testing.T, look func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return look()
	}
	result, refused := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 12345, 12345, 12345); errno != 0 {
			refused <- errno
			return
		}
		result <- look()
	}()
	select {
	case err := <-result:
		return err
	case err := <-refused:
		t.Skip("NOT TESTED: descriptors that cannot be read: this root cannot become another user:", err)
		return nil
	}
}

func TestParse(t *testing.T) {
	for text, bad := range map[string]string{
		"http://127.0.0.1:80/up":                  "",
		"http://127.0.0.1":                        "",
		"http://[::1]:808{generation}/{pid}":      "",
		"http://localhost:{pid}":                  "",
		"tcp://127.0.0.1:80":                      "",
		"tcp://127.0.0.1":                         "want a port",
		"tcp://127.0.0.1:0":                       "want a port",
		"tcp://127.0.0.1:65536":                   "want a port",
		"tcp://127.0.0.1:http":                    "invalid port",
		"tcp://127.0.0.1:80/x":                    "no path",
		"http://:80/":                             "want a host",
		"http:///up":                              "want a host",
		"http://127.0.0.1:80{gen}/":               "invalid",
		"http://u:p@127.0.0.1/":                   "neither a user",
		"http://127.0.0.1/#x":                     "fragment",
		"https://127.0.0.1/":                      "want http://",
		"udp://127.0.0.1:53":                      "want http://",
		"127.0.0.1:80":                            "first path segment",
		"http://127.0.0.1:80\x00/":                "invalid control character",
		"http://127.0.0.1:80/%zz":                 "invalid URL escape",
		"tcp://[fe80::1%25lo]:80":                 "",
		"http://127.0.0.1:/x":                     "",
		"http://127.0.0.{generation}:80/?{pid}=1": "",
		"http://127.0.0.1:810{slot}/{slot}":       "",
		"http://127.0.0.1:6553{generation}/":      "", // up to generation 5
		"http://127.0.0.1:6553{generation}0/":     "not \"655310\"",
		"http://127.0.0.1:9999{generation}/":      "not \"99991\"",
		"http://127.0.0.1:9999{pid}/":             "not \"99991\"",
		"tcp://127.0.0.1:99990{slot}":             "not \"999900\"",
		"tcp://127.0.0.1:{slot}":                  "not \"0\"", // the first candidate's
		"tcp://127.0.0.1:-{slot}":                 "invalid port",
		"tcp://127.0.0.1:80{slots}":               "invalid port",
		"tcp://127.0.0.256:80":                    "not \"127.0.0.256\"",
		"tcp://127.0.0.256{slot}:80":              "not \"127.0.0.2560\"",
		"tcp://127.0.{slot}:80":                   "not \"127.0.0\"",
		"tcp://app-{slot}.example:80":             "",
	} {
		target, err := Parse(text)
		if (err == nil) != (bad == "") || err != nil && !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v, want %q", text, err, bad)
		}
		if err == nil && target.String() != text {
			t.Errorf("%q became %q", text, target)
		}
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		target, bound string
		want          bool
	}{
		{"http://127.0.0.1:8080/up", "127.0.0.1:8080", true},
		{"http://127.0.0.1:8080/up", "127.0.0.1:8081", false},
		{"http://127.0.0.1:8080/up", "127.0.0.2:8080", false},
		{"http://127.0.0.1:8080/up", "0.0.0.0:8080", true},
		{"http://127.0.0.1:8080/up", "[::]:8080", true},
		{"http://127.0.0.1:8080/up", "[::1]:8080", false},
		{"http://[::1]:8080/up", "[::1]:8080", true},
		{"http://[::ffff:127.0.0.1]:8080/up", "127.0.0.1:8080", true},
		{"http://0.0.0.0:8080/up", "127.0.0.2:8080", true},
		{"tcp://[::]:8080", "127.0.0.2:8080", true},
		{"tcp://localhost:8080", "127.0.0.1:8080", true},
		{"tcp://localhost:8080", "[::1]:8080", true},
		{"tcp://localhost:8080", "192.0.2.1:8080", false},
		{"tcp://example.org:8080", "192.0.2.1:8080", false},
		{"http://127.0.0.1", "127.0.0.1:80", true},
		{"http://127.0.0.1?a={pid}", "127.0.0.1:80", true},
		{"http://127.0.0.1:808{generation}/", "127.0.0.1:8081", true},
		{"http://127.0.0.1:808{generation}/", "127.0.0.1:8082", false}, // found when it is asked
		{"http://127.0.0.1:808{slot}/", "127.0.0.1:8080", true},
		{"http://127.0.0.1:808{slot}/", "127.0.0.1:8081", true}, // of the second generation
		{"http://127.0.0.1:808{slot}/", "127.0.0.1:8090", false},
		{"http://127.0.0.{slot}:8080/", "127.0.0.1:8080", true},
		{"http://127.0.0.1:8{pid}/", "127.0.0.1:81", false},
		{"http://127.0.0.{generation}:8080/", "0.0.0.0:8080", true},
	} {
		target, err := Parse(c.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Shares(netip.MustParseAddrPort(c.bound)); got != c.want {
			t.Errorf("%s and %s: %v, want %v", c.target, c.bound, got, c.want)
		}
	}
}
