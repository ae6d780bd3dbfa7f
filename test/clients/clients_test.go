// Package clients runs the reference clients of sd_listen_fds(3) and sd_notify(3) under crank: each takes
// its sockets, says READY, is swapped twice while requests come that nobody repeats, and drains.
//
// It is a module of its own, so that crank does not depend on go-systemd. The other programs are those of
// Debian's packages; "go test" without arguments says of each one that is missing that it was not tested,
// and with REQUIRE_CLIENTS=1 that fails.
package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/guard"
)

// client is one reference client as an app.
type client struct {
	name    string
	needs   []string // a command that succeeds where all is installed; nil: nothing is needed
	debian  string   // the packages that have it
	argv    []string // APP: the app in Go, testdata/ is replaced by its path
	binds   []string
	status  string   // what its STATUS says at last
	counted []string // the keys that crank has counted at the end
}

const (
	web   = "web=tcp4://127.0.0.1:0"
	admin = "admin=DIR/admin.sock"
	// Debian's modules are for Debian's interpreter.
	python = "/usr/bin/python3"
)

var (
	goKeys    = []string{"READY", "STATUS", "STOPPING", "EXTEND_TIMEOUT_USEC"}
	plainKeys = []string{"READY", "STATUS"}
)

var clients = []client{
	{name: "go-systemd Listeners", argv: []string{"APP", "-via", "listeners"}, binds: []string{web, admin}, status: "serving listeners", counted: goKeys},
	{name: "go-systemd ListenersWithNames", argv: []string{"APP", "-via", "names"}, binds: []string{admin, web}, status: "serving names", counted: goKeys},
	{name: "go-systemd Files", argv: []string{"APP", "-via", "files"}, binds: []string{web}, status: "serving files", counted: goKeys},
	{name: "systemd-notify in a shell script", needs: []string{"systemd-notify", "--version"}, debian: "systemd",
		argv: []string{"testdata/app.sh", "APP"}, binds: []string{web}, status: "serving shell",
		counted: []string{"READY", "STATUS", "MAINPID", "EXTEND_TIMEOUT_USEC", "BARRIER"}},
	{name: "systemd-notify that names itself", needs: []string{"systemd-notify", "--version"}, debian: "systemd",
		argv: []string{"testdata/self.sh", "APP"}, binds: []string{web}, status: "serving self",
		counted: []string{"READY", "STATUS", "MAINPID", "BARRIER"}},
	{name: "Python, NOTIFY_SOCKET", needs: []string{python, "-V"}, debian: "python3",
		argv: []string{python, "testdata/app.py", "path"}, binds: []string{web, admin}, status: "serving path", counted: append(plainKeys, "STOPPING")},
	{name: "Python, NOTIFY_FD", needs: []string{python, "-V"}, debian: "python3",
		argv: []string{python, "testdata/app.py", "fd"}, binds: []string{web, admin}, status: "serving fd", counted: append(plainKeys, "STOPPING")},
	{name: "Python, systemd.daemon", needs: []string{python, "-c", "import systemd.daemon"}, debian: "python3-systemd",
		argv: []string{python, "testdata/app.py", "systemd"}, binds: []string{web, admin}, status: "serving systemd", counted: append(plainKeys, "STOPPING")},
	{name: "Python, sdnotify", needs: []string{python, "-c", "import sdnotify"}, debian: "python3-sdnotify",
		argv: []string{python, "testdata/app.py", "sdnotify"}, binds: []string{web, admin}, status: "serving sdnotify", counted: append(plainKeys, "STOPPING")},
	{name: "Ruby, sd_notify", needs: []string{"ruby", "-e", "require 'sd_notify'"}, debian: "ruby ruby-sd-notify",
		argv: []string{"ruby", "testdata/app.rb"}, binds: []string{web, admin}, status: "serving ruby", counted: append(plainKeys, "STOPPING")},
	{name: "Node, NOTIFY_FD", needs: []string{"node", "--version"}, debian: "nodejs",
		argv: []string{"node", "testdata/app.js", "fd"}, binds: []string{web}, status: "serving fd", counted: plainKeys},
	{name: "Node, systemd-notify", needs: []string{"sh", "-c", "node --version && systemd-notify --version"}, debian: "nodejs systemd",
		argv: []string{"node", "testdata/app.js", "child"}, binds: []string{web}, status: "serving child", counted: plainKeys},
}

// patience is how long a single thing may take on a busy machine.
const patience = time.Minute

var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	guard.Enter()
	var err error
	if bin, err = os.MkdirTemp("", "clients-bin-"); err == nil {
		defer os.RemoveAll(bin)
		err = errors.Join(build("../..", "./cmd/crank", "./cmd/crankctl"), build(".", "./gosystemd"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds programs in the module at dir.
func build(dir string, packages ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-C", dir, "-o", bin + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func TestClients(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.needs != nil {
				if out, err := exec.Command(c.needs[0], c.needs[1:]...).CombinedOutput(); err != nil {
					notTested(t, c.name, "not installed (Debian: "+c.debian+")", out)
					return
				}
			}
			i := start(t, nil, c.binds, c.command()...)
			i.swappedUnderLoad(c.status)
			i.end(c.counted...)
		})
	}
}

// notTested says so, and fails where nothing may be missing.
func notTested(t *testing.T, what, why string, out []byte) {
	t.Helper()
	fmt.Printf("NOT TESTED: %s: %s\n", what, why)
	if os.Getenv("REQUIRE_CLIENTS") != "" {
		t.Errorf("not tested: %s: %s\n%s", what, why, out)
	}
}

// command is argv with paths.
func (c client) command() []string {
	var command []string
	for _, arg := range c.argv {
		if arg == "APP" {
			arg = filepath.Join(bin, "gosystemd")
		} else if strings.HasPrefix(arg, "testdata/") {
			arg, _ = filepath.Abs(arg)
		}
		command = append(command, arg)
	}
	return command
}

// instance is one crank.
type instance struct {
	*testing.T
	dir     string
	process *exec.Cmd
	ended   chan error
	client  *control.Client
	sockets map[string]string // where they are, by name
	output  string            // the file with what crank and the app have written
}

func start(t *testing.T, flags, binds []string, command ...string) *instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "cl-") // shorter than t.TempDir, for the paths of sockets
	if err == nil {
		err = os.Chmod(dir, 0o711) // as crank creates it
	}
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{T: t, dir: dir, ended: make(chan error, 1), sockets: map[string]string{}, output: filepath.Join(dir, "output")}
	t.Cleanup(i.cleanUp)
	args := append([]string{"-name", "web", "-prefix", dir, "-settle", "50ms", "-http", "unix://" + dir + "/http"}, flags...)
	for _, bind := range binds {
		args = append(args, "-bind", strings.Replace(bind, "DIR", dir, 1))
	}
	output, err := os.Create(i.output)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	i.process = exec.Command(filepath.Join(bin, "crank"), append(append(args, "--"), command...)...)
	i.process.Env, i.process.Stdout, i.process.Stderr = environment(), output, output
	if err := i.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { i.ended <- i.process.Wait() }()
	i.waitReady()
	return i
}

// environment is without what would steer crank or the apps.
func environment() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "CRANK_") && !strings.HasPrefix(entry, "LISTEN_") && !strings.HasPrefix(entry, "NOTIFY_") {
			env = append(env, entry)
		}
	}
	return env
}

// waitReady waits for the first generation and asks where the sockets are.
func (i *instance) waitReady() {
	i.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if i.client, err = control.NewClient(filepath.Join(i.dir, "web.ctl"), ""); err != nil {
		i.Fatal(err)
	}
	for {
		if _, err = i.client.Wait(ctx, "ready", 0, nil); err == nil {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond): // its control socket is not there yet
		case end := <-i.ended:
			i.ended <- end
			i.Fatalf("crank has ended: %v", end)
		case <-ctx.Done():
			i.Fatalf("crank does not become ready: %v", err)
		}
	}
	info, err := i.client.Info(ctx)
	if err != nil {
		i.Fatal(err)
	}
	for _, s := range info.Sockets {
		_, i.sockets[s.Name], _ = strings.Cut(s.Bound, "://")
	}
}

// swappedUnderLoad swaps twice, with a request in flight each time, while others come.
func (i *instance) swappedUnderLoad(status string) {
	i.Helper()
	load := hammer.Start(hammer.Load{Network: "tcp", Address: i.sockets["web"], Short: 4, Pause: 2 * time.Millisecond, Timeout: patience})
	i.traffic(load, 50)
	for n := 1; n <= 2; n++ {
		if g := i.current(); g.Generation != n || g.Status != status {
			i.Errorf("generation %d says %q, want %d and %q", g.Generation, g.Status, n, status)
		}
		held := i.hold()
		i.reload()
		if left := i.ps("stopping"); len(left) != 1 || left[0].Generation != n {
			i.Errorf("generation %d should drain: %+v", n, left)
		}
		if got, want := held.release(i.T), fmt.Sprintf("generation %d\n", n); got != want {
			i.Errorf("the request in flight was answered by %q, want %q", got, want)
		}
		i.wait("idle")
		i.traffic(load, 50)
	}
	report := load.Stop()
	i.Logf("%d requests, %d lost, longest %v", report.Requests, report.Lost, report.Longest.Round(time.Millisecond))
	if report.Lost > 0 || len(report.Bodies) != 3 {
		i.Errorf("%d of %d requests were lost: %v; answers: %v", report.Lost, report.Requests, report.Errors, report.Bodies)
	}
}

// traffic waits for n more requests.
func (i *instance) traffic(load *hammer.Run, n int) {
	i.Helper()
	for until, deadline := load.Report().Requests+n, time.Now().Add(patience); load.Report().Requests < until; {
		if time.Now().After(deadline) {
			i.Fatalf("only %d requests, want %d", load.Report().Requests, until)
		}
		time.Sleep(time.Millisecond)
	}
}

// held is a request that the app has taken, and answers after one more byte.
type held struct {
	conn   net.Conn
	reader *bufio.Reader
	answer *http.Response
}

func (i *instance) hold() *held {
	i.Helper()
	conn, err := net.Dial("tcp", i.sockets["web"])
	if err != nil {
		i.Fatal(err)
	}
	i.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET /hold HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"); err != nil {
		i.Fatal(err)
	}
	h := &held{conn: conn, reader: bufio.NewReader(conn)}
	if h.answer, err = http.ReadResponse(h.reader, nil); err != nil {
		i.Fatalf("the request is not begun to be answered: %v", err)
	}
	return h
}

func (h *held) release(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(h.conn, "."); err != nil {
		t.Error(err)
	}
	body, err := io.ReadAll(h.answer.Body)
	if err != nil {
		t.Errorf("the answer is cut: %v", err)
	}
	return string(body)
}

func (i *instance) reload() {
	i.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result, err := i.client.Reload(ctx, control.SwapRequest{Wait: true}, nil)
	if err != nil || !result.OK {
		i.Fatalf("reload: %+v, error %v", result, err)
	}
}

func (i *instance) wait(what string) {
	i.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := i.client.Wait(ctx, what, 0, nil); err != nil {
		i.Fatalf("wait -%s: %v", what, err)
	}
}

func (i *instance) ps(states ...string) []control.Generation {
	i.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := i.client.PS(ctx, states, 0)
	if err != nil {
		i.Fatal(err)
	}
	return found
}

func (i *instance) current() control.Generation {
	i.Helper()
	found := i.ps("ready")
	if len(found) != 1 {
		i.Fatalf("current: %+v", found)
	}
	return found[0]
}

// metrics returns what crank counts, by name with its labels.
func (i *instance) metrics() map[string]string {
	i.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(i.dir, "http"))
		}}}
	answer, err := client.Get("http://crank/metrics")
	if err != nil {
		i.Fatal(err)
	}
	defer answer.Body.Close()
	found := map[string]string{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			found[name] = value
		}
	}
	return found
}

// end ends crank and the app, which must go in good order, and looks at what crank has counted before.
func (i *instance) end(keys ...string) {
	i.Helper()
	metrics := i.metrics()
	for _, key := range keys {
		if n := metrics[`crank_notify_messages_total{key="`+key+`"}`]; n == "" || n == "0" {
			i.Errorf("no message with %s was counted", key)
		}
	}
	if n := metrics["crank_notify_errors_total"]; n != "0" {
		i.Errorf("%s messages were refused", n)
	}
	if err := i.stop(); err != nil {
		i.Errorf("crank ended with %v", err)
	}
}

func (i *instance) stop() error {
	i.process.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-i.ended:
		i.ended <- err
		return err
	case <-time.After(patience):
		i.process.Process.Kill()
		return errors.New("it does not end on TERM")
	}
}

func (i *instance) cleanUp() {
	if i.process != nil && i.process.Process != nil {
		i.stop()
	}
	if output, err := os.ReadFile(i.output); err == nil && i.Failed() {
		i.Logf("crank and the app have written:\n%s", output[max(0, len(output)-8<<10):])
	}
	os.RemoveAll(i.dir)
}
