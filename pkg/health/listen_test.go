package health

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
)

const patience = time.Minute

// serve serves until the test ends.
func serve(t *testing.T, uri string, change func(*Server)) (*Listener, *http.Client) {
	t.Helper()
	l, err := Listen(uri, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Repeat("x", 1<<20)
	s := New(Options{Supervisor: &fake{status: ready}, Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 64 { // more than all buffers between here and a client
			if _, err := io.WriteString(w, page); err != nil {
				return
			}
		}
	})})
	if change != nil {
		change(s)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial(l) },
	}}
	t.Cleanup(func() {
		_ = s.Close() // with clients that read nothing it takes its time and closes their connections
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
	return l, client
}

func dial(l *Listener) (net.Conn, error) { return net.Dial(l.Addr().Network(), l.Addr().String()) }

// open dials and says something; the connection is closed with the test.
func open(t *testing.T, l *Listener, say string) net.Conn {
	t.Helper()
	c, err := dial(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantReady(t *testing.T, c *http.Client) {
	t.Helper()
	r, err := c.Get("http://crank/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 200 || string(body) != "ok\n" {
		t.Errorf("%v: %d %q", err, r.StatusCode, body)
	}
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http")
	for _, uri := range []string{"127.0.0.1:0", "tcp://127.0.0.1:0?backlog=5", "unix://" + path + "?mode=600", "unix://@crank-health-test"} {
		t.Run(strings.ReplaceAll(uri, "/", "_"), func(t *testing.T) {
			l, client := serve(t, uri, nil)
			wantReady(t, client)
			if strings.HasSuffix(l.Bound(), ":0") {
				t.Errorf("bound to %s", l.Bound())
			}
		})
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is still there: %v", err)
	}
}

func TestListenFails(t *testing.T) {
	l, _ := serve(t, "127.0.0.1:0", nil)
	tests := []struct{ uri, want string }{
		{"udp://127.0.0.1:0", "cannot serve HTTP on udp://127.0.0.1:0: want a TCP address, as in :9090, or a unix socket's path"},
		{"unixgram:///x", "want a TCP address"},
		{"fd://3", "want a TCP address"},
		{"example.com:80", "example.com"},
		{l.Bound(), "in use"},
		{"unix:///no/such/directory/http", "no such"},
	}
	for _, test := range tests {
		l, err := Listen(test.uri, logr.Discard())
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.uri, err, test.want)
		}
	}
}

// TestTooManyConnections: whoever holds connections, or floods, loses them, and probes are answered.
func TestTooManyConnections(t *testing.T) {
	l, client := serve(t, "127.0.0.1:0", nil)
	var idle []net.Conn
	for range MaxConnections + 3 {
		idle = append(idle, open(t, l, ""))
	}
	wantReady(t, client)
	for i, c := range idle[:3] { // these are closed before ReadTimeout ends them
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("connection %d got an answer to nothing", i)
		}
	}
	last := idle[len(idle)-1]
	if _, err := io.WriteString(last, "GET /readyz HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(last).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("the newest: %q %v", line, err)
	}
}

// TestSlowClients: those who do not send, or do not read, lose their connection, and others do not notice.
func TestSlowClients(t *testing.T) {
	const limit = 2 * time.Second
	l, client := serve(t, "127.0.0.1:0", func(s *Server) { s.http.ReadTimeout, s.http.WriteTimeout = limit, limit })
	silent := open(t, l, "")
	half := open(t, l, "GET /readyz HTTP/1.1\r\nHost: cra")
	unread := open(t, l, "GET /metrics HTTP/1.1\r\nHost: crank\r\n\r\n")
	junk := open(t, l, "\x00\xff\r\n\r\n")
	wantReady(t, client)
	for name, c := range map[string]net.Conn{"silent": silent, "half a request": half, "junk": junk} {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: still open", name)
		}
	}
	// It reads only once all others are gone: of 64 MiB there is what the buffers held.
	for l.count() > 0 {
		time.Sleep(time.Millisecond) // polled: the listener reports no close; the timeouts above bound the wait
	}
	if n, _ := io.Copy(io.Discard, unread); n >= 64<<20 {
		t.Errorf("it got all of the page, %d bytes", n)
	}
	wantReady(t, client)
}

func (l *Listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// TestLargeRequest: a header has a limit.
func TestLargeRequest(t *testing.T) {
	l, client := serve(t, "127.0.0.1:0", nil)
	c := open(t, l, "GET /readyz HTTP/1.1\r\nHost: crank\r\nX: ")
	go io.WriteString(c, strings.Repeat("x", 1<<20))
	if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && !strings.Contains(line, "431") {
		t.Errorf("%q", line)
	}
	wantReady(t, client)
}
