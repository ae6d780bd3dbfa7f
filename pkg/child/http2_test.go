//go:build linux

package child

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificate is one that the standard library has for tests.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.EnableHTTP2 = true
	ts.StartTLS()
	defer ts.Close()
	client = ts.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "example.com"
	client.NextProtos = []string{"h2"}
	return &tls.Config{Certificates: ts.TLS.Certificates}, client
}

// big is an answer of many frames, more than all windows together.
var big = strings.Repeat("0123456789abcdef", 20_000)

// huge does not fit into the buffers of a connection.
var huge = strings.Repeat(big, 40)

// h2server is Serve with HTTP/2 in this process: over TLS, or without.
type h2server struct {
	*server
	config *tls.Config // for clients; nil: no TLS
}

func startHTTP2(t *testing.T, secure bool, timeout time.Duration) *h2server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &h2server{server: &server{
		ln:      &noisyListener{Listener: ln, accepted: make(chan struct{}, 16), closed: make(chan struct{}, 16)},
		cancel:  cancel,
		entered: make(chan struct{}, 16), release: make(chan struct{}),
		returned: make(chan error, 1),
	}}
	srv := &http.Server{Handler: http.HandlerFunc(s.handle), ErrorLog: quiet(t)}
	var served net.Listener = s.ln
	if secure {
		var config *tls.Config
		config, s.config = certificate(t)
		served = TLS(s.ln, config)
	} else {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	go func() { s.returned <- Server{Timeout: timeout, Spread: -1}.Serve(ctx, srv, served) }()
	return s
}

func (s *h2server) connect(t *testing.T) *h2client {
	t.Helper()
	c := h2dial(t, s.ln.Addr(), s.config)
	await(t, s.ln.accepted, "the connection to be accepted")
	return c
}

// What an HTTP/2 client may be in the middle of when the drain begins.
func TestServeDrainsHTTP2(t *testing.T) {
	tests := []struct {
		name          string
		before, after func(*testing.T, *h2server, *h2client)
	}{
		{
			name:   "idle",
			before: func(_ *testing.T, _ *h2server, c *h2client) { c.answer(c.get("/"), "hello") },
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.ack()
				c.goAway(2, 1)
			},
		},
		{
			name:   "nothing was ever asked",
			before: func(_ *testing.T, _ *h2server, c *h2client) { c.until("SETTINGS", func() bool { return c.settled() }) },
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.ack()
				c.goAway(2, 0)
			},
		},
		{
			name: "a stream in the handler",
			before: func(t *testing.T, s *h2server, c *h2client) {
				c.get("/slow")
				await(t, s.entered, "the handler")
			},
			after: func(_ *testing.T, s *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.ack()
				close(s.release)
				c.answer(1, "hello")
				c.goAway(2, 1)
			},
		},
		{
			name:   "streams that were begun before the GOAWAY was read",
			before: func(_ *testing.T, _ *h2server, c *h2client) { c.answer(c.get("/"), "hello") },
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.until("GOAWAY", func() bool { return len(c.last) > 0 }) // it has come, but its client has not seen it yet
				streams := []uint32{c.get("/"), c.get("/"), c.post("/body")}
				c.frame(kindData, flagEndStream, streams[2], []byte("abc"))
				c.ack() // in the order in which it reads
				c.answer(streams[0], "hello")
				c.answer(streams[1], "hello")
				c.answer(streams[2], "abc")
				c.goAway(2, streams[2])
			},
		},
		{
			name: "a body being sent",
			before: func(t *testing.T, s *h2server, c *h2client) {
				c.post("/body")
				c.frame(kindData, 0, 1, []byte("abc"))
				await(t, s.entered, "the handler")
			},
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.ack()
				c.frame(kindData, flagEndStream, 1, []byte("def"))
				c.answer(1, "abcdef")
				c.goAway(2, 1)
			},
		},
		{
			name: "half of a frame of the client's",
			before: func(t *testing.T, s *h2server, c *h2client) {
				c.answer(c.get("/"), "hello")
				c.write(frameBytes(kindHeaders, flagEndStream|flagEndHeaders, c.stream(), headers("GET", "/"))[:20])
			},
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.write(frameBytes(kindHeaders, flagEndStream|flagEndHeaders, 3, headers("GET", "/"))[20:])
				c.ack()
				c.answer(3, "hello")
				c.goAway(2, 3)
			},
		},
		{
			name: "an answer in many frames",
			before: func(t *testing.T, s *h2server, c *h2client) {
				c.get("/big") // the client reads none of it: the server is in the middle of it, and waits for room
				await(t, s.entered, "the handler")
			},
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.frame(kindWindowUpdate, 0, 1, []byte{0, 16, 0, 0})
				c.goAway(1, maxStream)
				c.ack()
				c.answer(1, big)
				c.goAway(2, 1)
			},
		},
		{
			name: "an answer that is stuck in the middle of a frame",
			before: func(t *testing.T, s *h2server, c *h2client) {
				c.widen()
				c.get("/huge") // the client reads nothing, and the kernel has no room for all of it
				await(t, s.entered, "the handler")
			},
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.ack()
				c.answer(1, huge)
				c.goAway(2, 1)
			},
		},
		{
			name:   "a stream that is begun although its client has read the GOAWAY",
			before: func(_ *testing.T, _ *h2server, c *h2client) { c.answer(c.get("/"), "hello") },
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.frame(kindPing, flagAck, 0, pingData[:])
				c.until("the second PING", func() bool { return len(c.pings) == 2 })
				request := frameBytes(kindHeaders, flagEndStream|flagEndHeaders, c.stream(), headers("GET", "/"))
				c.write(slices.Concat(frameBytes(kindPing, flagAck, 0, pingData[:]), request[:20]))
				c.until("the third PING, instead of the end", func() bool { return len(c.pings) == 3 })
				c.acks = true
				c.write(slices.Concat(request[20:], frameBytes(kindPing, flagAck, 0, pingData[:])))
				c.answer(3, "hello")
				c.goAway(2, 3)
			},
		},
		{
			name:   "the client says more after the end",
			before: func(_ *testing.T, _ *h2server, c *h2client) { c.answer(c.get("/"), "hello") },
			after: func(_ *testing.T, _ *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.ack()
				c.goAway(2, 1)
				// In one piece: on a busy machine the server may have waited long enough before the next one.
				_, _ = c.conn.Write(bytes.Repeat(frameBytes(kindPing, 0, 0, []byte("12345678")), 100))
			},
		},
		{
			name:   "the client resets its stream",
			before: func(t *testing.T, s *h2server, c *h2client) { c.get("/slow"); await(t, s.entered, "the handler") },
			after: func(_ *testing.T, s *h2server, c *h2client) {
				c.goAway(1, maxStream)
				c.frame(kindReset, 0, 1, []byte{0, 0, 0, 8}) // CANCEL
				c.roundTrip()
				close(s.release)
				c.ack()
				c.goAway(2, 1)
			},
		},
		{
			name:   "the client hangs up",
			before: func(_ *testing.T, _ *h2server, c *h2client) { c.answer(c.get("/"), "hello") },
			after:  func(_ *testing.T, _ *h2server, c *h2client) { c.conn.Close() },
		},
	}
	for _, tt := range tests {
		for _, secure := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, TLS %v", tt.name, secure), func(t *testing.T) {
				t.Parallel()
				s := startHTTP2(t, secure, patience)
				c := s.connect(t)
				tt.before(t, s, c)
				s.beginDrain(t)
				tt.after(t, s, c)
				if len(c.last) > 0 {
					c.ends()
					if len(c.last) != 2 {
						t.Errorf("GOAWAY came %d times: %v", len(c.last), c.last)
					}
				}
				if err := s.wait(t); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// settled reports whether anything came: SETTINGS is the first.
func (c *h2client) settled() bool { return c.reader.Buffered() > 0 || c.read() == nil }

// A client that does not read, or does not answer a PING, is cut off at the deadline.
func TestServeHTTP2Deadline(t *testing.T) {
	for _, tt := range []struct {
		name, path, err string
	}{
		{"idle", "/", ""},
		{"in the handler", "/slow", "1 requests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startHTTP2(t, true, time.Second)
			c := s.connect(t)
			stream := c.get(tt.path)
			if tt.err == "" {
				c.answer(stream, "hello")
			} else {
				await(t, s.entered, "the handler")
			}
			s.beginDrain(t)
			err := s.wait(t)
			if tt.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error is %v, want %q", err, tt.err)
			}
			close(s.release)
		})
	}
}

// What pkg/child has two steps for: net/http's own server names the last stream that it has read, and what the client has
// begun by then is never answered.
func TestShutdownAloneLosesStreams(t *testing.T) {
	config, clientConfig := certificate(t)
	config.NextProtos = []string{"h2"}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }), ErrorLog: quiet(t)}
	go srv.Serve(ln)
	c := h2dial(t, ln.Addr(), clientConfig)
	c.answer(c.get("/"), "hello")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		srv.Shutdown(t.Context())
	}()
	c.until("GOAWAY", func() bool { return len(c.last) > 0 })
	stream := c.get("/")
	for c.read() == nil {
	}
	if _, ok := c.bodies[stream]; ok || c.last[0] != 1 {
		t.Errorf("net/http has learnt to drain HTTP/2 (GOAWAY %v): this package can be simpler", c.last)
	}
	<-ended
}

// HTTP/1.1 and HTTP/2 by one listener, and what a handler sees of TLS.
func TestServeTLS(t *testing.T) {
	config, clientConfig := certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	srv := &http.Server{ErrorLog: quiet(t), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %v %s", r.Proto, r.TLS.HandshakeComplete, r.TLS.ServerName)
	})}
	returned := make(chan error, 1)
	go func() { returned <- Serve(ctx, srv, TLS(ln, config)) }()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		clientConfig := clientConfig.Clone()
		clientConfig.NextProtos = nil
		transport := &http.Transport{TLSClientConfig: clientConfig, ForceAttemptHTTP2: protocol == "HTTP/2.0"}
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + ln.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if want := protocol + " true example.com"; err != nil || string(body) != want {
			t.Errorf("got %q, %v; want %q", body, err, want)
		}
		resp.Body.Close()
		transport.CloseIdleConnections()
	}
	// A client that does not speak TLS, or not ours, disturbs nobody.
	if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		io.WriteString(conn, get)
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	cancel()
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

// HTTP/2 that nobody has asked for is not served without TLS.
func TestServePlainIsHTTP1(t *testing.T) {
	s := startServer(t, patience)
	c := dial(t, s.ln.Addr())
	c.send(t, preface)
	answer, _ := io.ReadAll(c.reader)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
		t.Errorf("the preface of HTTP/2 is answered %q", answer)
	}
	s.beginDrain(t)
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// The frames are the same in whatever pieces they come, and where another may be inserted is after one of them.
func FuzzFrames(f *testing.F) {
	block := headers("GET", "/")
	f.Add(slices.Concat(frameBytes(kindSettings, 0, 0, nil), frameBytes(kindHeaders, 0, 1, block), frameBytes(kindContinuation, flagEndHeaders, 1, block),
		frameBytes(kindData, flagEndStream, 1, []byte(big[:100])), goAwayFrame(7), pingFrame()), uint64(1))
	f.Add([]byte{}, uint64(2))
	f.Add(bytes.Repeat([]byte{0xff}, 40), uint64(3))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		var whole, pieces frames
		var want, got []frame
		end := whole.scan(stream, func(f frame) { want = append(want, f) })
		random := rand.New(rand.NewPCG(seed, 0))
		last := 0
		for at := 0; at < len(stream); {
			n := 1 + random.IntN(len(stream)-at)
			if e := pieces.scan(stream[at:at+n], func(f frame) { got = append(got, f) }); e > 0 {
				last = at + e
			}
			at += n
		}
		if !slices.Equal(want, got) || whole.between() != pieces.between() || end != last {
			t.Errorf("%v until %d, in pieces %v until %d", want, end, got, last)
		}
		if end > len(stream) {
			t.Errorf("end is %d of %d", end, len(stream))
		}
	})
}

// slowConn reads some three megabytes a second.
type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond) // sets the pace
	return c.Conn.Read(p[:min(len(p), 16<<10)])
}

// A client that reads slowly gets its whole answer: that the server has written the end does not mean that it was read.
func TestServeHTTP2SlowReader(t *testing.T) {
	for _, secure := range []bool{true, false} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			t.Parallel()
			s := startHTTP2(t, secure, patience)
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				conn, err := d.DialContext(ctx, "tcp", s.ln.Addr().String())
				if err != nil || !secure {
					return slowConn{conn}, err
				}
				client := tls.Client(slowConn{conn}, s.config)
				return client, client.HandshakeContext(ctx)
			}}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get("http://app/huge")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			s.beginDrain(t)
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || int(n) != len(huge) {
				t.Errorf("%d of %d bytes, error %v", n, len(huge), err)
			}
			if err := s.wait(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// Where net/http has said GOAWAY itself, no other with a later stream follows: clients may take that for an error of the protocol.
func TestServeHTTP2GoAwayDoesNotGrow(t *testing.T) {
	s := startHTTP2(t, true, patience)
	c := s.connect(t)
	c.get("/slow")
	await(t, s.entered, "the handler")
	c.answer(c.get("/close"), "hello")
	c.until("GOAWAY", func() bool { return len(c.last) == 1 })
	s.beginDrain(t)
	close(s.release)
	c.answer(1, "hello")
	c.ends()
	if slices.Contains(c.last[1:], maxStream) {
		t.Errorf("GOAWAY names %v", c.last)
	}
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}
