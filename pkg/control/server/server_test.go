package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/control/server/servertest"
	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/attack"
	"github.com/crankctl/crank/test/leak"
	"github.com/crankctl/crank/test/root"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// patience is for what must happen; nothing waits that long when it does.
const patience = 20 * time.Second

type fixture struct {
	fake    *servertest.Fake
	server  *Server
	path    string
	client  *control.Client
	results chan string // verb and result of every request
}

// start serves a fake on a socket of its own until the test ends.
func start(t *testing.T, change func(*Server)) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl") // shorter than t.TempDir, for sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fixture{fake: servertest.New("web"), path: filepath.Join(dir, "web.ctl"), results: make(chan string, 1000)}
	f.server = New(Options{
		Supervisor: f.fake,
		Info:       func() control.Info { return control.Info{Name: "web", PID: 1, Version: "v1"} },
		Observe:    func(verb, result string) { f.results <- verb + " " + result },
	})
	if change != nil {
		change(f.server)
	}
	l, err := Listen(f.path, "")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.server.Serve(l) }()
	t.Cleanup(func() {
		f.server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
	if f.client, err = control.NewClient(f.path, ""); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) result(t *testing.T) string {
	t.Helper()
	select {
	case r := <-f.results:
		return r
	case <-time.After(patience):
		t.Fatal("no request was observed")
		return ""
	}
}

// raw sends bytes and returns the status and the body of the answer.
func (f *fixture) raw(t *testing.T, request string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go io.WriteString(conn, request) // the server may answer before it has read everything
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(body)
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

func TestBadInput(t *testing.T) {
	f := start(t, nil)
	tests := []struct {
		name, request string
		status        int
		says          string
	}{
		{"unknown route", get("/v1/nothing"), 404, "/v1/run"},
		{"root", get("/"), 404, ""},
		{"wrong method", get("/v1/run"), 405, "takes POST"},
		{"wrong method", post("/v1/ps", ""), 405, "takes GET"},
		{"unknown field", post("/v1/run", `{"comand":["/app"]}`), 400, `"comand"`},
		{"unknown field of reload", post("/v1/reload", `{"command":["/app"]}`), 400, `"command"`},
		{"garbage after", post("/v1/run", `{} {}`), 400, "after the JSON"},
		{"garbage after", post("/v1/run", `{}]`), 400, "after the JSON"},
		{"no JSON", post("/v1/run", `run!`), 400, "cannot read"},
		{"wrong type", post("/v1/run", `{"command":"/app"}`), 400, "command"},
		{"half JSON", post("/v1/run", `{"command":`), 400, "cannot read"},
		{"too large", post("/v1/run", `{"cwd":"`+strings.Repeat("x", MaxBodyBytes)+`"}`), 413, "1048576"},
		{"too large behind", post("/v1/run", `{}`+strings.Repeat(" ", MaxBodyBytes)), 413, "1048576"},
		{"empty command word", post("/v1/run", `{"command":[""]}`), 400, "command"},
		{"zero byte", post("/v1/run", `{"command":["a\u0000b"]}`), 400, "zero byte"},
		{"relative cwd", post("/v1/run", `{"cwd":"tmp"}`), 400, "absolute"},
		{"own variable", post("/v1/run", `{"env":["HOME"]}`), 400, "env: number 1 is neither"},
		{"no variable", post("/v1/run", `{"env":["=x"]}`), 400, "env"},
		{"start", post("/v1/run", `{"start":"soon"}`), 400, "start"},
		{"stop", post("/v1/run", `{"stop":"-1"}`), 400, "stop"},
		{"no selector", post("/v1/kill", `{"signal":"TERM"}`), 400, "states or a pid"},
		{"state", post("/v1/kill", `{"signal":"TERM","states":["dead"]}`), 400, "dead"},
		{"signal", post("/v1/kill", `{"signal":"TERMINATE","pid":1}`), 400, "TERMINATE"},
		{"no signal", post("/v1/kill", `{"pid":1}`), 400, "signal"},
		{"negative pid", post("/v1/kill", `{"signal":"TERM","pid":-1}`), 400, "pid"},
		{"query", get("/v1/ps?stat=ready"), 400, "stat"},
		{"query", get("/v1/ps?pid=x"), 400, "pid"},
		{"query", get("/v1/ps?state=dead"), 400, "dead"},
		{"wait for", get("/v1/wait?for=ever"), 400, "ever"},
		{"wait without number", get("/v1/wait?for=generation"), 400, "generation"},
		{"follow", get("/v1/events?follow=maybe"), 400, "maybe"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, header, body := f.raw(t, test.request)
			var wire control.Error
			if err := json.Unmarshal([]byte(body), &wire); err != nil {
				t.Fatalf("%v in %q", err, body)
			}
			if status != test.status || wire.Code != control.CodeInvalid || !strings.Contains(wire.Message, test.says) {
				t.Errorf("got %d %+v, want %d and %q", status, wire, test.status, test.says)
			}
			if allow := header.Get("Allow"); (allow != "") != (status == 405) {
				t.Errorf("Allow: %q with status %d", allow, status)
			}
		})
	}
}

func TestHalfRequestsDoNotDisturb(t *testing.T) {
	f := start(t, nil)
	for _, half := range []string{"", "G", "GET /v1/status HT", "POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"} {
		conn, err := net.Dial("unix", f.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, half)
	}
	if _, err := f.client.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// asUID runs f on a thread with another effective uid, which alone is what the kernel records for
// a socket; the rest of the process stays root.
func asUID(t *testing.T, uid int, f func()) {
	t.Helper()
	root.Need(t)
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if errno == 0 {
			f()
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

func TestPeerOfAnotherUser(t *testing.T) {
	f := start(t, nil)
	// As if the permissions of the socket did not keep the stranger out already.
	for _, path := range []string{f.path, filepath.Dir(f.path)} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	asUID(t, 12345, func() {
		for _, request := range []string{get("/v1/status"), get("/v1/nothing"), post("/v1/run", "{}")} {
			status, _, body := f.raw(t, request)
			if status != 403 || !strings.Contains(body, `"denied"`) || !strings.Contains(body, "12345") {
				t.Errorf("got %d %s", status, body)
			}
		}
		if _, err := f.client.Ready(t.Context()); err == nil {
			t.Error("ready was answered")
		}
	})
}

func TestOwnUserAndRootMayAsk(t *testing.T) {
	root.Need(t)
	old := geteuid
	geteuid = func() int { return 12345 } // crank's own user
	t.Cleanup(func() { geteuid = old })
	f := start(t, nil)
	os.Chmod(filepath.Dir(f.path), 0o755)
	os.Chmod(f.path, 0o777)
	if status, _, body := f.raw(t, get("/v1/status")); status != 200 {
		t.Errorf("root got %d %s", status, body)
	}
	asUID(t, 12345, func() {
		if status, _, body := f.raw(t, get("/v1/status")); status != 200 {
			t.Errorf("crank's own user got %d %s", status, body)
		}
	})
	asUID(t, 12346, func() {
		if status, _, body := f.raw(t, get("/v1/status")); status != 403 {
			t.Errorf("a stranger got %d %s", status, body)
		}
	})
}

func TestClientChecksTheServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o777)
	path := filepath.Join(dir, "web.ctl")
	asUID(t, 12345, func() {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		attack.AnswerAs(t, l, 12345)
	})
	client, _ := control.NewClient(path, "")
	if _, err := client.Run(t.Context(), control.RunRequest{}, nil); !errors.Is(err, control.ErrUnreachable) || !strings.Contains(err.Error(), "12345") {
		t.Errorf("root in a directory of everybody: %v", err)
	}
	os.Chown(dir, 12345, 0)
	os.Chmod(dir, 0o755)
	if conn, err := client.Dial(t.Context()); err != nil {
		t.Errorf("root in that user's own directory: %v", err)
	} else {
		conn.Close()
	}
	os.Chmod(path, 0o777)
	asUID(t, 12346, func() { // Dial asks for the uid on this thread
		if _, err := client.Dial(t.Context()); !errors.Is(err, control.ErrUnreachable) || !strings.Contains(err.Error(), "12345") {
			t.Errorf("a stranger's server: %v", err)
		}
	})
}

// Root talks to the crank of another user only where no third one can have put the socket, or any directory above it.
func TestRootChecksTheWholePath(t *testing.T) {
	root.Need(t)
	const user, stranger = 12345, 12346
	for _, c := range []struct {
		name  string
		owner int
		mode  os.FileMode
		ok    bool
	}{
		{"root's", 0, 0o755, true},
		{"the server's", user, 0o755, true},
		{"everybody's, sticky", 0, 0o1777, true},
		{"everybody's", 0, 0o777, false},
		{"a group's", 0, 0o775, false},
		{"a stranger's", stranger, 0o755, false},
		{"a stranger's, sticky", stranger, 0o1777, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent, err := os.MkdirTemp("", "ctl")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(parent)
			os.Chmod(parent, 0o755)
			above := filepath.Join(parent, "above")
			dir := filepath.Join(above, "crank")
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, user, 0), os.Symlink(dir, parent+"/link"),
				os.Symlink("link/web.ctl", parent+"/web.ctl")); err != nil {
				t.Fatal(err)
			}
			asUID(t, user, func() {
				l, err := net.Listen("unix", filepath.Join(dir, "web.ctl"))
				if err != nil {
					t.Error(err)
					return
				}
				attack.AnswerAs(t, l, user)
			})
			mode := c.mode & 0o777
			if c.mode&0o1000 != 0 {
				mode |= os.ModeSticky
			}
			if err := errors.Join(os.Chown(above, c.owner, 0), os.Chmod(above, mode)); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{dir + "/web.ctl", parent + "/link/web.ctl", parent + "/web.ctl"} {
				client, _ := control.NewClient(path, "")
				conn, err := client.Dial(t.Context())
				if err == nil {
					conn.Close()
				}
				if (err == nil) != c.ok || err != nil && !errors.Is(err, control.ErrUnreachable) {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
}

// Of several sockets on one port, only the one to which the kernel gives the connection counts.
func TestClientChecksTheExactListener(t *testing.T) {
	root.Need(t)
	token := newToken(t)
	const own, stranger = 0, 12345
	type bound struct {
		address string
		uid     int
	}
	for name, c := range map[string]struct {
		sockets []bound // the first gets any port, the others the same; [::] is IPv6-only
		ask     string
		ok      bool
	}{
		"a stranger owns IPv6, crank the address":     {[]bound{{"127.0.0.1", own}, {"[::]", stranger}}, "127.0.0.1", true},
		"crank owns IPv6, a stranger the address":     {[]bound{{"[::]", own}, {"127.0.0.1", stranger}}, "127.0.0.1", false},
		"a stranger owns IPv6, crank all of IPv4":     {[]bound{{"0.0.0.0", own}, {"[::]", stranger}}, "127.0.0.1", true},
		"crank owns IPv6, a stranger all of IPv4":     {[]bound{{"[::]", own}, {"0.0.0.0", stranger}}, "127.0.0.1", false},
		"a stranger owns IPv6 and is dialed":          {[]bound{{"127.0.0.1", own}, {"[::]", stranger}}, "[::1]", false},
		"crank owns IPv6 and is dialed":               {[]bound{{"[::]", own}, {"127.0.0.1", stranger}}, "[::1]", true},
		"crank owns the address, a stranger the next": {[]bound{{"127.0.0.1", own}, {"127.0.0.2", stranger}}, "127.0.0.1", true},
		"strangers share the address":                 {[]bound{{"127.0.0.1", stranger}, {"127.0.0.1", stranger}}, "127.0.0.1", false},
		"crank shares the address with itself":        {[]bound{{"127.0.0.1", own}, {"127.0.0.1", own}}, "127.0.0.1", true},
	} {
		t.Run(name, func(t *testing.T) {
			port := "0"
			for _, b := range c.sockets {
				l := listenShared(t, b.address+":"+port, b.uid)
				_, port, _ = net.SplitHostPort(l.Addr().String())
			}
			client, err := control.NewClient("tcp://"+c.ask+":"+port, token)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := client.Dial(t.Context())
			if err == nil {
				conn.Close()
			}
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "12345") {
				t.Errorf("dial: %v, want success: %v", err, c.ok)
			}
		})
	}
}

// listenShared listens with SO_REUSEPORT as the given user.
func listenShared(t *testing.T, address string, uid int) (l net.Listener) {
	t.Helper()
	network := "tcp4"
	if strings.HasPrefix(address, "[") {
		network = "tcp6" // Go sets IPV6_V6ONLY
	}
	const reusePort = 15 // SO_REUSEPORT of include/uapi/asm-generic/socket.h
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		control := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1) })
		return errors.Join(control, err)
	}}
	asUID(t, uid, func() {
		var err error
		if l, err = config.Listen(context.Background(), network, address); err != nil {
			t.Error(err)
		}
	})
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// Over TCP crankctl would send the token to whoever has the port, while crank is not there: another user must not get it.
func TestClientChecksWhoListens(t *testing.T) {
	token := newToken(t)
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		got := make(chan int, 10)
		var l net.Listener
		listen := func() {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			l = listener
			t.Cleanup(func() { listener.Close() })
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					n, _ := conn.Read(make([]byte, 1000))
					conn.Close()
					got <- n
				}
			}()
		}
		host, _, _ := net.SplitHostPort(address)
		if host == "0.0.0.0" || host == "::" {
			host = "127.0.0.1"
		}
		client := func() *control.Client {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			c, err := control.NewClient("tcp://"+net.JoinHostPort(host, port), token)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		listen()
		client().Ready(t.Context())
		if n := <-got; n == 0 {
			t.Errorf("%s: crank's own user was asked nothing", address)
		}
		asUID(t, 12345, listen)
		if _, err := client().Ready(t.Context()); !errors.Is(err, control.ErrUnreachable) || !strings.Contains(err.Error(), "12345") {
			t.Errorf("%s: %v", address, err)
		}
		if n := <-got; n != 0 {
			t.Errorf("%s: a stranger was sent %d bytes", address, n)
		}
	}
}

func TestClientRefusesWhatIsNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.ctl")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{path, path + ".not", "tcp://127.0.0.1:1"} {
		client, err := control.NewClient(address, path)
		if err == nil {
			_, err = client.Status(t.Context())
		}
		if !errors.Is(err, control.ErrUnreachable) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	f := start(t, func(s *Server) { s.ReadOnly = true })
	for _, path := range []string{control.PathRun, control.PathReload, control.PathRollback, control.PathAbort, control.PathKill} {
		if status, _, body := f.raw(t, post(path, "{}")); status != 409 || !strings.Contains(body, control.CodeReadOnly) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, err := f.client.Info(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestQueries(t *testing.T) {
	f := start(t, func(s *Server) { s.Redact = func([]string) []string { return []string{"***"} } })
	f.fake.Change(func(s *supervisor.Status) {
		s.Candidate = 4
		s.Generations = append(s.Generations, supervisor.GenerationStatus{
			Generation: 4, PID: 57, State: supervisor.Settling, Asker: supervisor.Asker{UID: 7, PID: 8, Name: "nine"},
			Since: time.Now(), Deadline: time.Now().Add(time.Minute),
		})
	})
	ctx := t.Context()

	status, err := f.client.Status(ctx)
	if err != nil || !status.Ready || status.Candidate != 4 || len(status.Generations) != 2 {
		t.Fatalf("%+v, %v", status, err)
	}
	if g := status.Generations[0]; g.ReadySeconds == nil || g.Asker != nil || !slices.Equal(g.Command, []string{"***"}) {
		t.Errorf("%+v", g)
	}
	if g := status.Generations[1]; g.LimitSeconds == nil || g.ReadySeconds != nil || g.Asker == nil || g.Asker.Name != "nine" {
		t.Errorf("%+v", g)
	}
	info, err := f.client.Info(ctx)
	if err != nil || info.Current == nil || info.Current.PID != 42 || f.client.Name() != "web" {
		t.Errorf("%+v, %v, %s", info, err, f.client.Name())
	}
	for _, test := range []struct {
		states []string
		pid    int
		want   []int
	}{
		{nil, 0, []int{3, 4}},
		{[]string{"ready"}, 0, []int{3}},
		{[]string{"starting"}, 0, []int{4}},
		{[]string{"starting", "ready"}, 57, []int{4}},
		{[]string{"stopping"}, 0, nil},
	} {
		found, err := f.client.PS(ctx, test.states, test.pid)
		var got []int
		for _, g := range found {
			got = append(got, g.Generation)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("ps %v %d = %v, %v", test.states, test.pid, got, err)
		}
	}
	if ready, err := f.client.Ready(ctx); err != nil || !ready.Ready {
		t.Errorf("%+v, %v", ready, err)
	}
	f.fake.Change(func(s *supervisor.Status) { s.Ready, s.Reason = false, "STOPPING=1" })
	if ready, err := f.client.Ready(ctx); err != nil || ready.Ready || ready.Reason != "STOPPING=1" {
		t.Errorf("%+v, %v", ready, err)
	}
}

func TestRunWaits(t *testing.T) {
	f := start(t, nil)
	asked := make(chan supervisor.Request, 1)
	f.fake.OnSwap = func(r supervisor.Request) (supervisor.Ticket, error) {
		f.fake.Event(supervisor.Event{Kind: "status", Generation: 3}) // of no swap
		swap := f.fake.Accept(4, 57)
		swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "started"})
		asked <- r
		go func() {
			swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "ready", Text: "booted", Took: time.Second})
			f.fake.Event(supervisor.Event{Kind: "status", Generation: 3})
			swap.Event(supervisor.Event{Generation: 3, PID: 42, Kind: "stopping", Cause: "SIGTERM"})
			saved := make(chan error)
			close(saved)
			swap.End(supervisor.Outcome{OK: true, Trigger: r.Trigger, From: 3, Generation: 4, PID: 57, Current: 4, CurrentPID: 57, Took: time.Second, Saved: saved})
		}()
		return swap.Ticket, nil
	}
	three := 3
	var kinds []string
	result, err := f.client.Run(t.Context(), control.RunRequest{
		SwapRequest: control.SwapRequest{Wait: true, Generation: &three},
		Command:     []string{"/app", "--v2"}, Cwd: "/srv", Env: []string{"A=b=c", "B-"}, Start: "10", Stop: "1m30s",
	}, func(e control.Event) { kinds = append(kinds, e.Kind) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"started", "ready", "stopping"}; !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	want := &control.Result{OK: true, Trigger: "run", From: 3, Generation: 4, PID: 57, Current: 4, CurrentPID: 57, Seconds: 1, Saved: "true"}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Error(diff)
	}
	r := <-asked
	if diff := cmp.Diff(supervisor.Change{
		Argv: []string{"/app", "--v2"}, Dir: "/srv", Env: []string{"A=b=c", "B-"}, Start: 10 * time.Second, Stop: 90 * time.Second,
	}, r.Change); diff != "" {
		t.Error(diff)
	}
	if r.Asker.UID != os.Geteuid() || r.Asker.PID != os.Getpid() || r.Asker.Name == "" || *r.IfGeneration != 3 || r.IfPID != nil {
		t.Errorf("%+v", r)
	}
	if got := f.result(t); got != "run ok" {
		t.Error(got)
	}
}

func TestRunFails(t *testing.T) {
	f := start(t, nil)
	f.fake.OnSwap = func(r supervisor.Request) (supervisor.Ticket, error) {
		swap := f.fake.Accept(4, 57)
		swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "failed", Cause: "exited 3 before ready"})
		swap.End(supervisor.Outcome{
			Trigger: r.Trigger, From: 3, Generation: 4, PID: 57, Current: 3, CurrentPID: 42, ExitCode: 3,
			Reason: "exited 3 before ready", Stderr: supervisor.Tail{Lines: []string{"no settings"}},
		})
		return swap.Ticket, nil
	}
	result, err := f.client.Reload(t.Context(), control.SwapRequest{Wait: true}, nil)
	var wire *control.Error
	if !errors.As(err, &wire) || wire.Code != control.CodeFailed || wire.Message != "swap failed, generation 3 (pid 42) still serving" {
		t.Fatalf("error %v", err)
	}
	if result.OK || result.Reason != "exited 3 before ready" || *result.ExitCode != 3 || result.Stderr[0] != "no settings" || result.Saved != "" {
		t.Errorf("%+v", result)
	}
	if got := f.result(t); got != "reload failed" {
		t.Error(got)
	}
}

func TestRunWithoutWaitEndsOnceStarted(t *testing.T) {
	f := start(t, nil)
	f.fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
		swap := f.fake.Accept(4, 57)
		swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "started"})
		return swap.Ticket, nil // and never ends
	}
	var events int
	result, err := f.client.Run(t.Context(), control.RunRequest{}, func(control.Event) { events++ })
	if err != nil || !result.OK || result.Generation != 4 || result.PID != 57 || result.Current != 3 || events != 1 {
		t.Errorf("%+v, %v, %d events", result, err, events)
	}
}

func TestRunWithoutWaitThatCannotStart(t *testing.T) {
	f := start(t, nil)
	f.fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
		swap := f.fake.Accept(4, 0)
		swap.End(supervisor.Outcome{Generation: 4, ExitCode: 127, Reason: "not found", Current: 0})
		return swap.Ticket, nil
	}
	result, err := f.client.Run(t.Context(), control.RunRequest{}, nil)
	if err == nil || err.Error() != "swap failed, nothing is serving" || *result.ExitCode != 127 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestSaved(t *testing.T) {
	closed := make(chan error)
	close(closed)
	failed := make(chan error, 1)
	failed <- errors.New("no space left on device")
	tests := []struct {
		name  string
		saved <-chan error
		want  control.Saved
	}{
		{"saved", closed, "true"},
		{"full disk", failed, "no space left on device"},
		{"slow disk", make(chan error), "pending"},
		{"nothing to save", nil, "off"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := start(t, func(s *Server) { s.savedTimeout = 10 * time.Millisecond })
			f.fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
				swap := f.fake.Accept(4, 57)
				swap.End(supervisor.Outcome{OK: true, Generation: 4, Saved: test.saved})
				return swap.Ticket, nil
			}
			result, err := f.client.Rollback(t.Context(), control.SwapRequest{Wait: true}, nil)
			if err != nil || result.Saved != test.want {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	f := start(t, nil)
	for _, code := range []string{
		control.CodeBusy, control.CodePrecondition, control.CodeDraining, control.CodeStopping,
		control.CodeNoRollback, control.CodeNoCommand, control.CodeNoCandidate, control.CodeMemory,
	} {
		f.fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
			return supervisor.Ticket{}, &supervisor.Refusal{Code: code, Message: "no: " + code}
		}
		if status, _, body := f.raw(t, post(control.PathReload, "")); status != 409 || !strings.Contains(body, code) {
			t.Errorf("%d %s", status, body)
		}
		_, err := f.client.Reload(t.Context(), control.SwapRequest{}, nil)
		var wire *control.Error
		if !errors.As(err, &wire) || wire.Code != code || !wire.Refused() || wire.Message != "no: "+code {
			t.Errorf("%v", err)
		}
		if got := f.result(t); got != "reload refused" {
			t.Error(got)
		}
	}
}

func TestAbort(t *testing.T) {
	f := start(t, nil)
	if _, err := f.client.Abort(t.Context()); err == nil || err.Error() != "nothing is starting" {
		t.Error(err)
	}
	f.fake.Change(func(s *supervisor.Status) {
		s.Generations = append(s.Generations, supervisor.GenerationStatus{Generation: 4, PID: 57, State: supervisor.Starting})
	})
	var who supervisor.Asker
	f.fake.OnAbort = func(a supervisor.Asker) (int, error) { who = a; return 4, nil }
	result, err := f.client.Abort(t.Context())
	if err != nil || result.Generation != 4 || result.PID != 57 || result.Current != 3 || who.PID != os.Getpid() {
		t.Errorf("%+v, %v, %+v", result, err, who)
	}
}

func TestKillWaitsUntilGone(t *testing.T) {
	f := start(t, func(s *Server) { s.pollInterval = time.Hour }) // events alone must wake it
	killed := make(chan supervisor.KillRequest, 1)
	f.fake.OnKill = func(k supervisor.KillRequest) ([]supervisor.GenerationStatus, error) {
		before := f.fake.Status().Generations // the test takes them away once it has heard of k
		killed <- k
		return before, nil
	}
	answered := make(chan error, 1)
	pid := 42
	go func() {
		result, err := f.client.Kill(t.Context(), control.KillRequest{States: []string{"ready"}, PID: &pid, Signal: "INT", Wait: true})
		if err == nil && (len(result.Generations) != 1 || result.Signal != "SIGINT") {
			err = fmt.Errorf("%+v", result)
		}
		answered <- err
	}()
	k := <-killed
	if k.Signal != syscall.SIGINT || k.PID != 42 || !slices.Equal(k.States, []supervisor.State{supervisor.Ready}) || k.Asker.PID != os.Getpid() {
		t.Errorf("%+v", k)
	}
	f.fake.Event(supervisor.Event{Kind: "signal"})
	select {
	case err := <-answered:
		t.Fatalf("answered while the generation was there: %v", err)
	default:
	}
	f.fake.Change(func(s *supervisor.Status) { s.Current, s.Generations = 0, nil })
	f.fake.Event(supervisor.Event{Kind: "exited", Generation: 3})
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestWait(t *testing.T) {
	starting := supervisor.GenerationStatus{Generation: 4, PID: 57, State: supervisor.Starting}
	leaving := supervisor.GenerationStatus{Generation: 2, PID: 41, State: supervisor.Stopping}
	notReady := func(s *supervisor.Status) { s.Ready, s.Current, s.Generations = false, 0, nil }
	tests := []struct {
		name          string
		before, after func(*supervisor.Status) // nil after: answered at once
		what          string
		generation    int
		fails         string
	}{
		{"ready at once", nil, nil, "ready", 0, ""},
		{"ready later", notReady, func(s *supervisor.Status) { s.Ready = true }, "ready", 0, ""},
		{"ready never", notReady, func(s *supervisor.Status) { s.Stopping = true }, "ready", 0, "crank is stopping"},
		{"idle at once", nil, nil, "idle", 0, ""},
		{"idle later", func(s *supervisor.Status) { s.Generations = append(s.Generations, leaving) },
			func(s *supervisor.Status) { s.Generations = s.Generations[:1] }, "idle", 0, ""},
		{"generation at once", nil, nil, "generation", 3, ""},
		{"generation of the past", nil, nil, "generation", 2, "generation 2 is not current and will not be, generation 3 (pid 42) still serving"},
		{"generation of the future", nil, func(s *supervisor.Status) { s.Current = 5 }, "generation", 5, ""},
		{"generation becomes current", func(s *supervisor.Status) { s.Generations = append(s.Generations, starting) },
			func(s *supervisor.Status) { s.Current = 4 }, "generation", 4, ""},
		{"generation fails", func(s *supervisor.Status) { s.Generations = append(s.Generations, starting) },
			func(s *supervisor.Status) {
				s.Generations = s.Generations[:1]
				s.LastSwap = &supervisor.Outcome{Generation: 4}
			}, "generation", 4, "generation 4 is not current"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := start(t, func(s *Server) { s.pollInterval = 10 * time.Millisecond })
			if test.before != nil {
				f.fake.Change(test.before)
			}
			f.fake.Event(supervisor.Event{Kind: "old"})
			seen := make(chan string, 10)
			ended := make(chan error, 1)
			go func() {
				_, err := f.client.Wait(t.Context(), test.what, test.generation, func(e control.Event) {
					select {
					case seen <- e.Kind:
					default: // the first few are enough
					}
				})
				ended <- err
			}()
			if test.after != nil {
				// Events that reach the client prove that it waits.
				for waiting := false; !waiting; {
					f.fake.Event(supervisor.Event{Kind: "new"})
					select {
					case kind := <-seen:
						if kind != "new" {
							t.Errorf("saw %s", kind)
						}
						waiting = true
					case err := <-ended:
						t.Fatalf("ended early: %v", err)
					case <-time.After(5 * time.Millisecond):
					}
				}
				f.fake.Change(test.after)
			}
			if err := <-ended; (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("err = %v, want %q", err, test.fails)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	f := start(t, nil)
	for _, kind := range []string{"started", "ready"} {
		f.fake.Event(supervisor.Event{Kind: kind})
	}
	var got []string
	collect := func(e control.Event) { got = append(got, e.Kind) }
	if err := f.client.Events(t.Context(), 1, false, collect); err != nil || !slices.Equal(got, []string{"ready"}) {
		t.Fatalf("%v, %v", got, err)
	}

	got = nil
	ctx, cancel := context.WithCancel(t.Context())
	err := f.client.Events(ctx, 0, true, func(e control.Event) {
		if collect(e); e.Kind == "ready" {
			f.fake.Event(supervisor.Event{Kind: "stopping"}) // while it follows
		} else if e.Kind == "stopping" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
	// The server notices that the client has gone.
	for _, want := range []string{"events ok", "events ok"} {
		if got := f.result(t); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestStreamsEndWithTheSupervisor(t *testing.T) {
	f := start(t, nil)
	f.fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) { return f.fake.Accept(4, 57).Ticket, nil }
	f.fake.Change(func(s *supervisor.Status) { s.Ready = false })
	ended := make(chan error, 3)
	go func() { ended <- f.client.Events(t.Context(), 0, true, nil) }()
	go func() {
		c, _ := control.NewClient(f.path, "")
		_, err := c.Wait(t.Context(), "ready", 0, nil)
		ended <- err
	}()
	go func() {
		c, _ := control.NewClient(f.path, "")
		_, err := c.Reload(t.Context(), control.SwapRequest{Wait: true}, nil)
		ended <- err
	}()
	f.fake.End()
	for range 3 {
		var wire *control.Error
		if err := <-ended; !errors.As(err, &wire) || wire.Message != "crank itself has ended" {
			t.Errorf("%v", err)
		}
	}
}

func TestOutcomeBeatsTheEndOfTheSupervisor(t *testing.T) {
	f := start(t, nil)
	f.fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
		swap := f.fake.Accept(4, 57)
		swap.End(supervisor.Outcome{OK: true, Generation: 4})
		return swap.Ticket, nil
	}
	f.fake.End()
	for range 20 {
		if result, err := f.client.Reload(t.Context(), control.SwapRequest{Wait: true}, nil); err != nil || !result.OK {
			t.Fatalf("%+v, %v", result, err)
		}
	}
}

// A client that asks for a stream and does not read it costs a connection for a while, not forever.
func TestSlowClientIsDropped(t *testing.T) {
	f := start(t, func(s *Server) { s.writeTimeout = 50 * time.Millisecond })
	conn, err := net.Dial("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, get("/v1/events?follow=true"))
	big := strings.Repeat("x", 1<<20)
	for range 4 {
		f.fake.Event(supervisor.Event{Kind: "status", Text: big})
	}
	if got := f.result(t); got != "events error" {
		t.Error(got)
	}
}

func TestManyConnectionsWait(t *testing.T) {
	f := start(t, nil)
	var held []net.Conn
	for range MaxConnections + 10 {
		conn, err := net.Dial("unix", f.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, get("/v1/events?follow=true"))
		held = append(held, conn)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := f.client.Ready(t.Context())
		asked <- err
	}()
	for _, conn := range held[:MaxConnections] { // those that are served
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	held[MaxConnections].SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := held[MaxConnections].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more than the limit was served: %v", err)
	}
	for _, conn := range held {
		conn.Close()
	}
	if err := <-asked; err != nil {
		t.Errorf("not served after the others had gone: %v", err)
	}
}

func TestNoGoroutineStays(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("requests", func(t *testing.T) {
		f := start(t, nil)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c, _ := control.NewClient(f.path, "")
				c.Status(ctx)
				go cancel()
				c.Events(ctx, 0, true, nil)
			})
		}
		all.Wait()
	})
	// Polled: a goroutine's end raises no event.
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
