package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/control/server/servertest"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/root"
)

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "web.ctl")
}

func mustListen(t *testing.T, path string) *Listener {
	t.Helper()
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocketMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // the worst case
	path := socketPath(t)
	mustListen(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestLiveSocketIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	first := mustListen(t, path)
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "live process") {
		t.Errorf("%v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is left: %v", err)
	}
}

// A datagram socket refuses the connection with EPROTOTYPE: it is alive.
func TestLiveSocketOfAnotherType(t *testing.T) {
	path := socketPath(t)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := Listen(path, ""); err == nil {
		t.Error("taken over")
	}
}

func TestStaleSocketIsTakenOver(t *testing.T) {
	path := socketPath(t)
	old, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	mustListen(t, path)
}

func TestForeignFileIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Error(err)
	}
}

func TestCloseRemovesOnlyItsOwn(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path)
	other, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(path); err != nil || !os.SameFile(info, other) {
		t.Errorf("the other's socket is gone: %v", err)
	}
}

func TestBadAddresses(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	open := filepath.Join(t.TempDir(), "open")
	short := filepath.Join(t.TempDir(), "short")
	os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600)
	os.WriteFile(open, []byte("0123456789abcdef\n"), 0o644)
	os.WriteFile(short, nil, 0o600)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil { // nobody writes to it
		t.Fatal(err)
	}
	for _, test := range []struct{ address, token, says string }{
		{"@web", "", "abstract"},
		{"/tmp/" + strings.Repeat("x", 120), "", "107"},
		{"/nowhere/at/all/web.ctl", "", "no such file"},
		{"tcp://0.0.0.0:0", token, "loopback"},
		{"tcp://:0", token, "loopback"},
		{"tcp://192.0.2.1:80", token, "loopback"},
		{"tcp://example.com:80", token, "literal address"},
		{"tcp://127.0.0.1", token, "port"},
		{"tcp://127.0.0.1:0", "", "CRANK_CTL_TOKEN_FILE"},
		{"tcp://127.0.0.1:0", open, "0600"},
		{"tcp://127.0.0.1:0", short, "16 bytes"},
		{"tcp://127.0.0.1:0", token + ".not", "CRANK_CTL_TOKEN_FILE"},
		{"tcp://127.0.0.1:0", fifo, "regular file"},
		{"tcp://127.0.0.1:0", filepath.Dir(token), "regular file"},
	} {
		if l, err := Listen(test.address, test.token); err == nil {
			l.Close()
			t.Errorf("%s was bound", test.address)
		} else if !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.address, err, test.says)
		}
	}
}

// Who owns the token can read it, and is not crank's own user.
func TestTokenOfAnotherUser(t *testing.T) {
	root.Need(t)
	token := newToken(t)
	if err := os.Chown(token, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen("tcp://127.0.0.1:0", token); err == nil {
		l.Close()
		t.Error("used")
	} else if !strings.Contains(err.Error(), "belongs to uid 12345") {
		t.Error(err)
	}
}

// newToken writes a token file.
func newToken(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTCPNeedsTheToken(t *testing.T) {
	token := newToken(t)
	l, err := Listen("tcp://localhost:0", token)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Supervisor: servertest.New("web")})
	go s.Serve(l)
	defer s.Close()
	address := l.Addr().String()

	for _, header := range []string{"", "Bearer ", "Bearer wrong", "0123456789abcdeF"} {
		request, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+control.PathStatus, nil)
		request.Header.Set("Authorization", header)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized || response.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%q: %s", header, response.Status)
		}
	}
	client, err := control.NewClient("tcp://"+address, token)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := client.Status(context.Background()); err != nil || status.Name != "web" {
		t.Errorf("%+v, %v", status, err)
	}
	if ready, err := client.Ready(context.Background()); err != nil || !ready.Ready {
		t.Errorf("%+v, %v", ready, err)
	}
}

// Requests without the token can neither flood the log nor choose its content.
func TestDeniedRequestsAreCounted(t *testing.T) {
	token := newToken(t)
	l, err := Listen("tcp://localhost:0", token)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log, writer := logging.New(&out, "json", 0, false, "web")
	s := New(Options{Supervisor: servertest.New("web"), Log: log})
	go s.Serve(l)
	defer s.Close()
	const requests = 2000
	path := "/" + strings.Repeat("x", 8000)
	for i := range requests {
		response, err := http.Get("http://" + l.Addr().String() + path) //nolint:noctx // the test's own server
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if i%100 == 0 {
			http.DefaultClient.CloseIdleConnections() // the next request comes from another port
		}
	}
	writer.Close(patience)
	// One at the start, one every ten seconds, and one at the end.
	if n, lines := out.Len(), strings.Count(out.String(), "\n"); n > 10<<10 || lines < 2 || !strings.Contains(out.String(), `"suppressed":`) {
		t.Errorf("%d requests wrote %d lines, %d bytes: %.3000s", requests, lines, n, out.String())
	}
}

// A page in a browser on the same machine can send such requests: from another origin, or, once its name leads to 127.0.0.1
// (DNS rebinding), from its own. It cannot know the token, and may not read the answer.
func TestTCPFromABrowser(t *testing.T) {
	token := newToken(t)
	l, err := Listen("tcp://127.0.0.1:0", token)
	if err != nil {
		t.Fatal(err)
	}
	fake := servertest.New("web")
	fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
		t.Error("a swap was asked for")
		return supervisor.Ticket{}, errors.New("not here")
	}
	s := New(Options{Supervisor: fake})
	go s.Serve(l)
	defer s.Close()
	for _, c := range []struct{ method, path, body string }{
		{"GET", control.PathStatus, ""}, {"OPTIONS", control.PathRun, ""}, {"POST", control.PathReload, "{}"},
		{"POST", control.PathRun, `{"command":["/bin/sh"]}`},
	} {
		request, _ := http.NewRequestWithContext(t.Context(), c.method, "http://"+l.Addr().String()+c.path, strings.NewReader(c.body))
		request.Host = "rebound.example"
		request.Header.Set("Origin", "http://evil.example")
		request.Header.Set("Content-Type", "text/plain")
		request.Header.Set("Access-Control-Request-Headers", "authorization")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s: %s", c.method, c.path, response.Status)
		}
		for name := range response.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s: %s lets a page of another origin in", c.method, c.path, name)
			}
		}
	}
}
