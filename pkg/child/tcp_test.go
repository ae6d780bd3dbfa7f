//go:build linux

package child

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startTCP runs ServeTCP in this process with a handler that says "hello", and "goodbye" when it is to leave; then it
// waits for its client to hang up.
func startTCP(t *testing.T, s Server) (addr net.Addr, handled chan struct{}, drain context.CancelFunc, returned chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	handled, returned = make(chan struct{}, 16), make(chan error, 1)
	go func() {
		returned <- s.ServeTCP(ctx, func(leaving context.Context, conn net.Conn) {
			io.WriteString(conn, "hello\n")
			stop := context.AfterFunc(leaving, func() { io.WriteString(conn, "goodbye\n") })
			defer stop()
			handled <- struct{}{}
			io.Copy(io.Discard, conn)
		}, ln)
	}()
	return ln.Addr(), handled, cancel, returned
}

func (c *client) line(t *testing.T, want string) {
	t.Helper()
	if got, err := c.reader.ReadString('\n'); got != want+"\n" {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestServeTCP(t *testing.T) {
	for _, spread := range []time.Duration{-1, 50 * time.Millisecond} {
		t.Run(fmt.Sprint("spread ", spread), func(t *testing.T) {
			addr, handled, drain, returned := startTCP(t, Server{Timeout: patience, Spread: spread})
			var clients []*client
			for range 5 {
				c := dial(t, addr)
				c.line(t, "hello")
				await(t, handled, "the handler")
				clients = append(clients, c)
			}
			drain()
			for _, c := range clients {
				c.line(t, "goodbye")
			}
			select {
			case err := <-returned:
				t.Fatalf("it returns while clients are connected: %v", err)
			case <-time.After(10 * time.Millisecond):
			}
			for _, c := range clients {
				c.conn.Close()
			}
			if err := <-returned; err != nil {
				t.Error(err)
			}
		})
	}
}

// Nobody is told before the drain, and all are by the end of Spread: each at a point of its own.
func TestSpread(t *testing.T) {
	const n = 50
	c := newConns(t.Context())
	told := make(chan time.Duration, n)
	var began time.Time
	for range n {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		p := c.add(c.follow(ours), http.StateHijacked)
		context.AfterFunc(p.leaving, func() { told <- time.Since(began) })
	}
	if len(told) > 0 {
		t.Fatal("somebody was told before the drain")
	}
	began = time.Now()
	c.leave(time.Second)
	var moments []time.Duration
	for range n {
		moments = append(moments, <-told)
	}
	slices.Sort(moments)
	// None is told too early, however slow the machine is. That all 50 are told in the first half has a chance of 1 in 10^15.
	if last := moments[n-1]; last < time.Second/2 {
		t.Errorf("all were told within %v", last)
	}
	t.Logf("told after %v to %v", moments[0], moments[n-1])
}

func TestServeTCPDeadline(t *testing.T) {
	addr, handled, drain, returned := startTCP(t, Server{Timeout: time.Second, Spread: -1})
	c := dial(t, addr)
	await(t, handled, "the handler")
	drain()
	if err := <-returned; err == nil || !strings.Contains(err.Error(), "1 long-lived connections") {
		t.Errorf("error is %v", err)
	}
	c.line(t, "hello")
	c.line(t, "goodbye")
	if b, err := c.reader.ReadByte(); err == nil {
		t.Errorf("got %q after the end", b)
	}
}

// What becomes of one that was hijacked from [tls.NewListener] is not known. It is not told to leave while nobody drains.
func TestHijackedElsewhere(t *testing.T) {
	config, clientConfig := certificate(t)
	clientConfig.NextProtos = nil
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	srv := &http.Server{ErrorLog: quiet(t), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer conn.Close()
			<-r.Context().Done() // the handler has returned
			for lines := bufio.NewScanner(buffered); lines.Scan(); {
				fmt.Fprintln(conn, Leaving(r.Context()).Err())
			}
		}()
	})}
	returned := make(chan error, 1)
	go func() { returned <- Serve(ctx, srv, tls.NewListener(ln, config)) }()
	conn, err := tls.Dial("tcp", ln.Addr().String(), clientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := &client{conn: conn, reader: bufio.NewReader(conn)}
	c.send(t, get)
	for range 20 {
		c.send(t, "\n")
		c.line(t, "<nil>")
	}
	cancel()
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

// A connection that was hijacked is waited for, told to leave, and closed at the deadline.
func TestHijacked(t *testing.T) {
	for _, timeout := range []time.Duration{patience, time.Second} {
		t.Run(fmt.Sprint("timeout ", timeout), func(t *testing.T) {
			s := startServer(t, timeout)
			c := s.connect(t)
			c.send(t, "GET /websocket HTTP/1.1\r\nHost: app\r\n\r\n")
			c.line(t, "hello")
			s.beginDrain(t)
			c.line(t, "goodbye")
			if timeout == patience {
				c.conn.Close()
			}
			err := s.wait(t)
			if cut := timeout != patience; cut != (err != nil) || cut && !strings.Contains(err.Error(), "1 long-lived connections") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// A stream of events, HTTP/1.1 and HTTP/2, ends when its handler sees that it is to leave.
func TestEventStream(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		s := startServer(t, patience)
		c := s.connect(t)
		c.send(t, "GET /events HTTP/1.1\r\nHost: app\r\n\r\n")
		resp, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		await(t, s.entered, "the handler")
		s.beginDrain(t)
		body, err := io.ReadAll(resp.Body)
		if string(body) != "event\nlast\n" || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
		c.send(t, get)
		c.answer(t, true)
		if err := s.wait(t); err != nil {
			t.Error(err)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		s := startHTTP2(t, true, patience)
		c := s.connect(t)
		stream := c.get("/events")
		await(t, s.entered, "the handler")
		s.beginDrain(t)
		c.goAway(1, maxStream)
		c.ack()
		c.answer(stream, "event\nlast\n")
		c.goAway(2, stream)
		c.ends()
		if err := s.wait(t); err != nil {
			t.Error(err)
		}
	})
}

type readerFrom struct {
	*net.TCPConn
	n atomic.Int64
}

func (r *readerFrom) ReadFrom(from io.Reader) (int64, error) {
	r.n.Add(1)
	return r.TCPConn.ReadFrom(from)
}

// sendfile(2) is still used: what is copied to the connection takes the way that net has for files.
func TestServeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newConns(t.Context())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client := dial(t, ln.Addr())
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	counting := &readerFrom{TCPConn: accepted.(*net.TCPConn)}
	conn := c.follow(counting)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	go func() {
		io.Copy(conn, io.LimitReader(file, int64(len(big)))) // as net/http does
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(client.reader)
	if string(got) != big || err != nil || counting.n.Load() != 1 {
		t.Errorf("%d bytes, %v, and net's ReadFrom was called %d times", len(got), err, counting.n.Load())
	}
	if _, err := conn.SyscallConn(); err != nil {
		t.Error(err)
	}
	conn.Close()
}
