package apps

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/instance"
)

const (
	get    = "GET / HTTP/1.1\r\nHost: app\r\n\r\n"
	slow   = "GET /slow HTTP/1.1\r\nHost: app\r\n\r\n"
	post   = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\n\r\n"
	events = "GET /events HTTP/1.1\r\nHost: app\r\n\r\n"
)

// kind is what a connection may be in the middle of when its app is asked to stop.
type kind struct {
	name   string
	before func(*client) error
	after  func(*client) error
}

// kinds are those of a client that sends requests.
var kinds = []kind{
	{"idle", (*client).ask, (*client).ask}, // the first one: cuts has a way of its own to see what becomes of it
	{"before its first request", nothing, (*client).ask},
	{"in its first request", sends(get[:20]), asks(get[20:])},
	{"in a further request", then((*client).ask, sends(get[:20])), asks(get[20:])},
	{"in the body of a request", sends(post + "abc"), asks("def")},
	{"idle, then a request with a body", (*client).ask, then(sends(post+"abc"), asks("def"))},
	{"being answered", sends(slow), (*client).answer},
}

// others do not want a further answer. The apps of the document have to end them, too.
var others = []kind{
	{"in a stream", then(sends(events), (*client).stream), (*client).end},
	{"idle, then a stream", (*client).ask, then(sends(events), (*client).stream, (*client).end)},
	{"hangs up", (*client).ask, (*client).hangUp},
	{"hangs up in a request", sends(get[:20]), (*client).hangUp},
}

// drains shows that an app answers each connection once more and says that this was the last answer, and that it ends
// when the last one is closed.
func (p program) drains(t *testing.T, command []string) {
	i := instance.Start(t, bin, slices.Concat(p.flags, []string{"-stop", "900s"}), command...)
	wanted := slices.Concat(kinds, others)
	clients := connect(t, i.Address, wanted)
	i.Terminate()
	draining(t, clients[len(wanted)])
	for n, k := range wanted {
		if err := k.after(clients[n]); err != nil {
			t.Errorf("%s: %v", k.name, err)
		} else if err := clients[n].farewell(); err != nil {
			t.Errorf("%s, then: %v", k.name, err)
		}
	}
	if !t.Failed() {
		i.Wait()
	}
}

// deadline shows that an app does not wait for ever: neither for a request nor for a client that does not read.
func (p program) deadline(t *testing.T, command []string) {
	i := instance.Start(t, bin, slices.Concat(p.flags, []string{"-stop", "900s"}), command...)
	narrow(t, i.Address).begin(t, events)
	narrow(t, i.Address).begin(t, get)
	c := mustDial(t, i.Address)
	if err := c.ask(); err != nil {
		t.Fatal(err)
	}
	i.Terminate()
	i.Wait()
	if err := c.end(); err != nil {
		t.Error(err)
	}
}

// cuts returns the kinds of connections whose request a program loses when it is stopped in its usual way. That it
// closes an idle connection which it had said it would keep is what loses a request that is on its way, and must be so.
func (p program) cuts(t *testing.T, command []string) (lost []string) {
	i := instance.Start(t, bin, slices.Concat(p.flags, []string{"-stop", "10s"}), command...)
	busy := kinds[1:]
	clients := connect(t, i.Address, busy)
	idle := clients[len(busy)]
	i.Terminate()
	if b, err := idle.in.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		t.Errorf("an idle connection is not closed any more (byte %d, error %v): say so in %s", b, err, document)
	} else {
		lost = append(lost, kinds[0].name)
	}
	for n, k := range busy {
		if err := k.after(clients[n]); err != nil {
			t.Logf("%s: %v", k.name, err)
			lost = append(lost, k.name)
		}
		clients[n].Close()
	}
	<-i.Ended()
	return lost
}

// connect makes a connection of each kind, and one that is idle. All of them are accepted.
func connect(t *testing.T, address string, kinds []kind) (clients []*client) {
	t.Helper()
	for _, k := range kinds {
		c := mustDial(t, address)
		if err := k.before(c); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		clients = append(clients, c)
	}
	idle := mustDial(t, address)
	if err := idle.ask(); err != nil { // connections are accepted in turn
		t.Fatal(err)
	}
	return append(clients, idle)
}

// draining waits until the app says that it is draining.
func draining(t *testing.T, c *client) {
	t.Helper()
	for deadline := time.Now().Add(patience); !c.last; {
		if err := c.ask(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("no answer says Connection: close")
		}
	}
}

func nothing(*client) error { return nil }

func sends(text string) func(*client) error {
	return func(c *client) error {
		_, err := io.WriteString(c, text)
		return err
	}
}

// asks sends the rest of a request and reads the answer.
func asks(text string) func(*client) error { return then(sends(text), (*client).answer) }

func then(steps ...func(*client) error) func(*client) error {
	return func(c *client) error {
		for _, step := range steps {
			if err := step(c); err != nil {
				return err
			}
		}
		return nil
	}
}

// client is a connection. It repeats nothing.
type client struct {
	net.Conn
	in   *bufio.Reader
	body string // of the last answer
	last bool   // the server has said that this was it
}

// dial makes a connection that lives that long at most.
func dial(address string, life time.Duration) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, life)
	if err != nil {
		return nil, err
	}
	return newClient(conn, life), nil
}

// newClient takes a connection, which lives that long at most.
func newClient(conn net.Conn, life time.Duration) *client {
	conn.SetDeadline(time.Now().Add(life))
	return &client{Conn: conn, in: bufio.NewReader(conn)}
}

// mustDial is dial for the time of a test.
func mustDial(t *testing.T, address string) *client {
	t.Helper()
	c, err := dial(address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answer reads a whole answer.
func (c *client) answer() error {
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	c.last = resp.Close
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	c.body = string(body)
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func (c *client) ask() error { return asks(get)(c) }

// farewell wants one more answer where the last one was not said to be the last, and then the end.
func (c *client) farewell() error {
	if !c.last {
		if err := c.ask(); err != nil {
			return err
		}
	}
	if !c.last {
		return errors.New("the answer does not say Connection: close")
	}
	return c.end()
}

// stream reads the beginning of a stream.
func (c *client) stream() error {
	resp, err := http.ReadResponse(c.in, nil)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream") {
		err = fmt.Errorf("%s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	c.last = true
	return err
}

// end reads up to the end.
func (c *client) end() error {
	_, err := io.Copy(io.Discard, c.in)
	return err
}

// hangUp closes the connection, which needs no farewell.
func (c *client) hangUp() error {
	c.in, c.last = bufio.NewReader(strings.NewReader("")), true
	return c.Close()
}
