//go:build linux

package child

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/leak"
)

// patience is how long something may take that should happen at once, on a busy machine.
const patience = 30 * time.Second

// Generations of real processes share one socket, and each is told to drain as soon as the next is
// ready. Clients that never retry notice nothing.
func TestServeLosesNothing(t *testing.T) {
	const swaps = 10
	fd, address := listenRaw(t)
	notices := listenNotify(t)
	old := startGeneration(t, 1, fd, notices)
	old.waitReady(t)
	run := hammer.Start(hammer.Load{Network: "tcp", Address: address, KeepAlive: 4, Short: 4, Timeout: patience})
	for n := range swaps {
		next := startGeneration(t, n+2, fd, notices)
		next.waitReady(t)
		old.drain(t)
		old = next
	}
	report := run.Stop()
	old.drain(t)
	t.Logf("%d requests, %d connections, longest %v", report.Requests, report.Connections, report.Longest)
	if report.Lost > 0 {
		t.Errorf("%d of %d requests were lost: %s", report.Lost, report.Requests, strings.Join(report.Errors, "; "))
	}
	for n := range swaps - 1 { // the last ones may come and go between two requests
		if body := fmt.Sprintf("generation %d", n+1); report.Bodies[body] == 0 {
			t.Errorf("no answer from %s", body)
		}
	}
}

// What a client may be in the middle of when the drain begins.
func TestServeDrains(t *testing.T) {
	tests := []struct {
		name          string
		before, after func(*testing.T, *client)
		err           string // of Serve
	}{
		{
			name:   "idle, and then a request",
			before: func(t *testing.T, c *client) { c.send(t, get); c.answer(t, false) },
			after:  func(t *testing.T, c *client) { c.send(t, get); c.answer(t, true) },
		},
		{
			name:   "accepted, and then its first request",
			before: func(*testing.T, *client) {},
			after:  func(t *testing.T, c *client) { c.send(t, get); c.answer(t, true) },
		},
		{
			name:   "half of the first request",
			before: func(t *testing.T, c *client) { c.send(t, get[:20]) },
			after:  func(t *testing.T, c *client) { c.send(t, get[20:]); c.answer(t, true) },
		},
		{
			name:   "half of the second request",
			before: func(t *testing.T, c *client) { c.send(t, get); c.answer(t, false); c.send(t, get[:20]) },
			after:  func(t *testing.T, c *client) { c.send(t, get[20:]); c.answer(t, true) },
		},
		{
			name:   "a body being sent",
			before: func(t *testing.T, c *client) { c.send(t, post+"abc"); c.inHandler(t) },
			after:  func(t *testing.T, c *client) { c.send(t, "def"); c.answer(t, false); c.send(t, get); c.answer(t, true) },
		},
		{
			name:   "in the handler",
			before: func(t *testing.T, c *client) { c.send(t, slow); c.inHandler(t) },
			after: func(t *testing.T, c *client) {
				close(c.release)
				c.answer(t, true)
			},
		},
		{
			name:   "the client hangs up",
			before: func(t *testing.T, c *client) { c.send(t, get); c.answer(t, false) },
			after:  func(t *testing.T, c *client) { c.conn.Close() },
		},
		{
			name:   "hijacked",
			before: func(t *testing.T, c *client) { c.send(t, hijack); c.inHandler(t) },
			after:  func(*testing.T, *client) {},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, patience)
			c := s.connect(t)
			tt.before(t, c)
			s.beginDrain(t)
			tt.after(t, c)
			if err := s.wait(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestServeDeadline(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		s := startServer(t, time.Millisecond)
		c := s.connect(t)
		c.send(t, get)
		c.answer(t, false)
		await(t, s.idle, "the connection to be idle")
		s.beginDrain(t)
		if err := s.wait(t); err != nil {
			t.Error(err)
		}
		if _, err := c.reader.ReadByte(); err != io.EOF {
			t.Errorf("the connection ends with %v", err)
		}
	})
	t.Run("in the handler", func(t *testing.T) {
		s := startServer(t, time.Millisecond)
		c := s.connect(t)
		c.send(t, slow)
		c.inHandler(t)
		s.beginDrain(t)
		if err := s.wait(t); err == nil || !strings.Contains(err.Error(), "1 requests") {
			t.Errorf("error is %v", err)
		}
		close(c.release)
	})
}

// Half of a request is something that is cut short, whichever it is of its connection.
func TestServeDeadlineInARequest(t *testing.T) {
	for _, requests := range []int{0, 1} {
		t.Run(fmt.Sprint("after ", requests), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, 3*time.Second)
			c := s.connect(t)
			for range requests {
				c.send(t, get)
				c.answer(t, false)
				await(t, s.idle, "the connection to be idle")
			}
			c.send(t, get[:20])
			s.beginDrain(t)
			if err := s.wait(t); err == nil || !strings.Contains(err.Error(), "1 requests") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// Whatever an app says of the connection: the last answer on it says close. There are streams of events that say keep-alive.
func TestServeDrainsKeepAlive(t *testing.T) {
	s := startServer(t, patience)
	c := s.connect(t)
	c.send(t, "GET /keep-alive HTTP/1.1\r\nHost: app\r\n\r\n")
	c.inHandler(t)
	s.beginDrain(t)
	close(s.release)
	c.answer(t, true)
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// A supervisor that does not read its notifications holds up neither the connections nor the end.
func TestServeDrainsUnheard(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("NOTIFY_FD", fmt.Sprint(pair[1]))
	s := startServer(t, patience)
	c := s.connect(t)
	c.send(t, "GET /events HTTP/1.1\r\nHost: app\r\n\r\n")
	c.inHandler(t)
	for err == nil {
		err = syscall.Sendto(pair[1], []byte("STATUS=x"), syscall.MSG_DONTWAIT, nil)
	}
	began := time.Now()
	if err := Status("x"); err == nil || time.Since(began) < notifyTimeout {
		t.Errorf("error after %v: %v", time.Since(began), err)
	}
	s.beginDrain(t)
	c.answer(t, false) // it had begun before
	c.conn.Close()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
	// It still tries to say STOPPING=1, by the descriptor's number, which another test must not get before.
	for message := make([]byte, 64); ; {
		n, err := syscall.Read(pair[0], message)
		if err != nil {
			t.Fatal(err)
		}
		if string(message[:n]) == "STOPPING=1" {
			break
		}
	}
}

func TestServeListenerClosed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), &http.Server{}, ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error is %v", err)
	}
}

func TestServeListenerFails(t *testing.T) {
	broken := errors.New("broken")
	s := startServer(t, patience, failingListener{err: broken})
	if err := s.wait(t); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

// The reason for this package: Shutdown closes a connection on which a request is being sent.
func TestShutdownAloneLosesRequests(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go srv.Serve(ln)
	c := dial(t, ln.Addr())
	c.send(t, get)
	c.answer(t, false)
	c.send(t, get[:20])
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.conn.Write([]byte(get[20:]))
	if _, err := http.ReadResponse(c.reader, nil); err == nil {
		t.Error("net/http has learnt to drain: this package can be simpler")
	}
}

const (
	get    = "GET / HTTP/1.1\r\nHost: app\r\n\r\n"
	slow   = "GET /slow HTTP/1.1\r\nHost: app\r\n\r\n"
	hijack = "GET /hijack HTTP/1.1\r\nHost: app\r\n\r\n"
	post   = "POST /body HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\n\r\n"
)

// server is ServeDraining in this process, with ears.
type server struct {
	ln       *noisyListener
	cancel   context.CancelFunc
	entered  chan struct{} // a handler that waits has begun
	release  chan struct{} // closed: /slow may end
	idle     chan struct{} // a connection has become so
	returned chan error
}

func startServer(t *testing.T, timeout time.Duration, more ...net.Listener) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{
		ln:       &noisyListener{Listener: ln, accepted: make(chan struct{}, 16), closed: make(chan struct{}, 16)},
		cancel:   cancel,
		entered:  make(chan struct{}, 16),
		release:  make(chan struct{}),
		idle:     make(chan struct{}, 16),
		returned: make(chan error, 1),
	}
	srv := &http.Server{Handler: http.HandlerFunc(s.handle), ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			s.idle <- struct{}{}
		}
	}}
	go func() { s.returned <- Server{Timeout: timeout, Spread: -1}.Serve(ctx, srv, append(more, s.ln)...) }()
	return s
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		io.WriteString(w, "hello")
	case "/close":
		w.Header().Set("Connection", "close")
		io.WriteString(w, "hello")
	case "/big":
		s.entered <- struct{}{}
		io.WriteString(w, big)
	case "/huge":
		s.entered <- struct{}{}
		io.WriteString(w, huge)
	case "/slow":
		s.entered <- struct{}{}
		<-s.release
		io.WriteString(w, "hello")
	case "/keep-alive":
		s.entered <- struct{}{}
		<-s.release
		w.Header().Set("Connection", "keep-alive")
		io.WriteString(w, "hello")
	case "/body":
		w.WriteHeader(http.StatusOK) // the answer begins before the drain
		s.entered <- struct{}{}
		io.Copy(w, r.Body)
	case "/events":
		io.WriteString(w, "event\n")
		http.NewResponseController(w).Flush()
		s.entered <- struct{}{}
		<-Leaving(r.Context()).Done()
		io.WriteString(w, "last\n")
	case "/websocket":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		go func() { // the handler returns, the connection stays
			defer conn.Close()
			io.WriteString(conn, "hello\n")
			context.AfterFunc(Leaving(r.Context()), func() { io.WriteString(conn, "goodbye\n") })
			io.Copy(io.Discard, conn)
		}()
	case "/hijack":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			defer conn.Close()
		}
		s.entered <- struct{}{}
		<-Leaving(r.Context()).Done()
	}
}

// quiet is for a server whose clients misbehave.
func quiet(t *testing.T) *log.Logger { return log.New(t.Output(), "", 0) }

func (s *server) beginDrain(t *testing.T) {
	t.Helper()
	s.cancel()
	await(t, s.ln.closed, "the listener to be closed")
}

func (s *server) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.returned:
		return err
	case <-time.After(patience):
		t.Fatal("Serve does not return")
		return nil
	}
}

// connect returns a connection that the server has accepted.
func (s *server) connect(t *testing.T) *client {
	t.Helper()
	c := dial(t, s.ln.Addr())
	c.entered, c.release = s.entered, s.release
	await(t, s.ln.accepted, "the connection to be accepted")
	return c
}

type client struct {
	conn             net.Conn
	reader           *bufio.Reader
	entered, release chan struct{}
}

func dial(t *testing.T, addr net.Addr) *client {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{conn: conn, reader: bufio.NewReader(conn)}
}

func (c *client) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		t.Fatal(err)
	}
}

func (c *client) inHandler(t *testing.T) {
	t.Helper()
	await(t, c.entered, "the handler")
}

// answer reads a whole answer, and checks whether it says that it is the last one.
func (c *client) answer(t *testing.T, last bool) {
	t.Helper()
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal("no answer:", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal("half an answer:", err)
	}
	if resp.StatusCode != http.StatusOK || resp.Close != last {
		t.Errorf("answer is %s, last: %v, want 200, last: %v", resp.Status, resp.Close, last)
	}
}

func await(t *testing.T, event <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(patience):
		t.Fatalf("waited too long for %s", what)
	}
}

type noisyListener struct {
	net.Listener
	accepted, closed chan struct{}
}

func (l *noisyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- struct{}{}
	}
	return conn, err
}

func (l *noisyListener) Close() error {
	err := l.Listener.Close()
	l.closed <- struct{}{}
	return err
}

type failingListener struct{ err error }

func (l failingListener) Accept() (net.Conn, error) { return nil, l.err }
func (l failingListener) Close() error              { return nil }
func (l failingListener) Addr() net.Addr            { return &net.TCPAddr{} }

// The other processes.

func TestMain(m *testing.M) {
	if os.Getenv("CHILD_TEST_BODY") == "" {
		flag.Parse()
		flag.Set("test.parallel", "16") // they wait more than they compute
		os.Exit(leak.Main(m))
	}
	if err := generation(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// generation is what an app's main is.
func generation() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listeners, err := Listeners()
	if err != nil {
		return err
	}
	body := []byte(os.Getenv("CHILD_TEST_BODY"))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })}
	return Serve(ctx, srv, listeners...)
}

// process is a generation, started as crank does it: with a raw descriptor, since os/exec would
// clear O_NONBLOCK on the socket that is shared.
type process struct {
	number  int
	pid     int
	notices *net.UnixConn
}

func startGeneration(t *testing.T, number, listener int, notices *net.UnixConn) process {
	t.Helper()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0]}, &syscall.ProcAttr{
		Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0", // the detector waits 1 s otherwise
			fmt.Sprintf("CHILD_TEST_BODY=generation %d", number),
			"LISTEN_FDS=1",
			"NOTIFY_SOCKET="+notices.LocalAddr().String()),
		Files: []uintptr{0, 1, 2, uintptr(listener)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := process{number: number, pid: pid, notices: notices}
	t.Cleanup(func() {
		if t.Failed() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return p
}

func (p process) waitReady(t *testing.T) {
	t.Helper()
	buf := make([]byte, 100)
	p.notices.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := p.notices.Read(buf)
		if err != nil {
			t.Fatalf("generation %d does not say READY=1: %v", p.number, err)
		}
		if string(buf[:n]) == "READY=1" { // the socket is every generation's: one before may say STOPPING=1
			return
		}
	}
}

func (p process) drain(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || status != 0 {
			t.Fatalf("generation %d ended with %#x (%v)", p.number, status, err)
		}
		return
	}
}

// listenRaw is a listening socket in blocking mode, as crank makes it.
func listenRaw(t *testing.T) (fd int, address string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}

func listenNotify(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
