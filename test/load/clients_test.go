package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/crankctl/crank/test/websocket"
)

// kind is a kind of client in TestEverything.
type kind struct {
	name    string
	socket  string // its name
	clients int
	long    bool // its connections are kept, so that most live to see a swap
	// session is the life of one connection, or one request of several that share it. It ends at the latest
	// with the first request after the end of ctx.
	session func(ctx context.Context, c *client) error
}

var kindsOfClients = []kind{
	{name: "short", socket: "web", clients: 2, session: http1(plain, 1, "/")},
	{name: "keep-alive", socket: "web", clients: 3, long: true, session: http1(plain, -1, "/")},
	{name: "pipelined, five at a time", socket: "web", clients: 2, long: true, session: pipelined},
	{name: "slow, 1.5 s", socket: "web", clients: 6, long: true, session: http1(plain, -1, "/?delay=1.5s")},
	{name: "TLS, HTTP/1.1", socket: "tls", clients: 2, long: true, session: http1(secured("http/1.1"), -1, "/")},
	{name: "TLS, HTTP/2, six streams", socket: "tls", clients: 6, long: true, session: http2},
	{name: "WebSocket", socket: "web", clients: 6, long: true, session: talk},
	{name: "unix, keep-alive", socket: "local", clients: 2, long: true, session: http1(plain, -1, "/")},
	{name: "unix, short", socket: "local", clients: 1, session: http1(plain, 1, "/")},
	{name: "UDP", socket: "echo", clients: 2, session: datagrams},
}

// tally is what the clients of a kind have seen.
type tally struct {
	Connections, Requests int
	Failed, Resets        int // requests without their answer, or a connection that ended without a word; of them, resets
	Told                  int // connections whose client was told before they were closed
	Repeated              int // requests behind the one whose answer said close: sent again on another connection
	Longest               time.Duration
	Errors                []string // of the first that failed
}

// crowd is all clients of a kind.
type crowd struct {
	kind
	at      address
	http2   *http.Client // of the kind that has it
	clients sync.WaitGroup

	mu sync.Mutex
	tally
}

// client is one of them.
type client struct {
	*crowd
	number int
	again  int // requests that are to be repeated
}

// begin starts the clients. They end after ctx, and crowd.clients has waited for them then.
func (k kind) begin(ctx context.Context, at address) *crowd {
	c := &crowd{kind: k, at: at}
	c.http2 = c.newHTTP2()
	for n := range k.clients {
		c.clients.Go(func() {
			me := &client{crowd: c, number: n}
			for ctx.Err() == nil {
				if err := k.session(ctx, me); err != nil {
					c.failed(err)
				}
			}
		})
	}
	return c
}

// seen returns what was seen so far.
func (c *crowd) seen() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally
}

func (c *crowd) count(add func(t *tally)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	add(&c.tally)
}

func (c *crowd) connected() { c.count(func(t *tally) { t.Connections++ }) }
func (c *crowd) told()      { c.count(func(t *tally) { t.Told++ }) }

// answered counts n requests that were sent at a time and have their answers.
func (c *crowd) answered(n int, sent time.Time) {
	c.count(func(t *tally) {
		t.Requests += n
		t.Longest = max(t.Longest, time.Since(sent))
	})
}

func (c *crowd) failed(err error) {
	c.count(func(t *tally) {
		t.Failed++
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			t.Resets++
		}
		if len(t.Errors) < 5 {
			t.Errors = append(t.Errors, err.Error())
		}
	})
}

// dialer connects to a socket.
type dialer func(at address) (net.Conn, error)

func plain(at address) (net.Conn, error) { return net.DialTimeout(at.network, at.address, tooLate) }

// secured speaks TLS, and the protocol in it. The certificate is not what is tested.
func secured(protocol string) dialer {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	return func(at address) (net.Conn, error) {
		conn, err := plain(at)
		if err != nil {
			return nil, err
		}
		conn.SetDeadline(time.Now().Add(tooLate))
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			conn.Close()
			return nil, fmt.Errorf("the handshake: %w", err)
		}
		return secure, nil
	}
}

// http1 returns a session of one request after the other: so many, or, where it is negative, until an answer says close.
func http1(dial dialer, requests int, path string) func(context.Context, *client) error {
	return func(ctx context.Context, c *client) error {
		conn, err := dial(c.at)
		if err != nil {
			return err
		}
		defer conn.Close()
		c.connected()
		reader := bufio.NewReader(conn)
		for n := 0; n != requests && ctx.Err() == nil; n++ {
			closed, err := c.requests(conn, reader, path, 1, n+1 == requests)
			if err != nil || closed {
				return err
			}
		}
		return nil
	}
}

// pipelined sends five requests in one write, waits for all answers, and does so again.
func pipelined(ctx context.Context, c *client) error {
	conn, err := plain(c.at)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.connected()
	reader := bufio.NewReader(conn)
	for ctx.Err() == nil || c.again > 0 {
		n := 5
		if c.again > 0 {
			n, c.again = c.again, 0
		}
		if closed, err := c.requests(conn, reader, "/", n, false); err != nil || closed {
			return err
		}
	}
	return nil
}

// requests sends n requests at once and reads the answers. After one that says close the rest is not answered (RFC
// 9112, 9.6), and to be repeated. last asks for the close.
func (c *client) requests(conn net.Conn, reader *bufio.Reader, path string, n int, last bool) (closed bool, err error) {
	request := "GET " + path + " HTTP/1.1\r\nHost: app\r\n"
	if last {
		request += "Connection: close\r\n"
	}
	conn.SetDeadline(time.Now().Add(tooLate))
	sent := time.Now()
	if _, err := io.WriteString(conn, strings.Repeat(request+"\r\n", n)); err != nil {
		return false, err
	}
	for done := 1; done <= n; done++ {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return false, fmt.Errorf("no answer: %w", err)
		}
		if err := whole(resp); err != nil {
			return false, err
		}
		c.answered(1, sent)
		if resp.Close && !last {
			c.told()
			c.again = n - done
			c.count(func(t *tally) { t.Repeated += n - done })
			return true, nil
		}
	}
	return last, nil
}

// whole reads the whole answer.
func whole(resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "generation ")) {
		err = fmt.Errorf("answered %s, %.40q", resp.Status, body)
	}
	return err
}

// talk sends messages on a WebSocket until the app says that it goes away. What it has not answered then is repeated.
func talk(ctx context.Context, c *client) error {
	conn, err := websocket.Dial(c.at.network, c.at.address, "/websocket", tooLate)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.connected()
	for n := 0; ctx.Err() == nil; n++ {
		message := fmt.Sprintf("message %d", n)
		conn.SetDeadline(time.Now().Add(tooLate))
		sent := time.Now()
		if err := conn.Write(websocket.Text, []byte(message)); err != nil {
			return err
		}
		kind, got, err := conn.Read()
		switch {
		case err != nil:
			return fmt.Errorf("the WebSocket ended without a word: %w", err)
		case kind == websocket.Close:
			c.told()
			c.count(func(t *tally) { t.Repeated++ })
			return conn.WriteClose(websocket.GoingAway)
		case string(got) != message:
			return fmt.Errorf("%q was answered %q", message, got)
		}
		c.answered(1, sent)
		rest(ctx)
	}
	return conn.WriteClose(websocket.GoingAway)
}

// rest is between two messages: most of a WebSocket's life is waiting.
func rest(ctx context.Context) {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
}

// datagrams sends one after the other. Each must be answered, exactly once.
func datagrams(ctx context.Context, c *client) error {
	conn, err := plain(c.at)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.connected()
	buf := make([]byte, 100)
	for n := 0; ctx.Err() == nil; n++ {
		message := fmt.Sprintf("datagram %d of client %d", n, c.number)
		conn.SetDeadline(time.Now().Add(tooLate))
		sent := time.Now()
		if _, err := io.WriteString(conn, message); err != nil {
			return err
		}
		got, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if string(buf[:got]) != message { // also: an answer that came twice
			return fmt.Errorf("%q was answered %q", message, buf[:got])
		}
		c.answered(1, sent)
	}
	return nil
}
