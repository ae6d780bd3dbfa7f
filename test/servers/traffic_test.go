package servers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
)

// The load on each server: so many clients of each kind, and their pause between two requests.
const (
	clients = 2
	pause   = 5 * time.Millisecond
	tooLate = 60 * time.Second
)

// load is the traffic on one server.
type load struct {
	strict *hammer.Run // a connection for each request, none of which may be lost
	kept   *hammer.Run // kept alive, and what the server closes under a request is lost
	others *crowd      // as HTTP clients are: kept alive, and repeats what was lost on a connection that had been used
}

// load starts the clients.
func (i *instance) load() *load {
	if i.ask != nil {
		return &load{others: gather(func() func() (string, error) {
			return func() (string, error) { return i.request("/") }
		})}
	}
	of := hammer.Load{Network: "tcp", Address: i.address[0], Pause: pause, Timeout: tooLate}
	short, kept := of, of
	short.Short, kept.KeepAlive = clients, clients
	return &load{
		strict: hammer.Start(short),
		kept:   hammer.Start(kept),
		others: gather(func() func() (string, error) { return browser(i.address[0]) }),
	}
}

func (l *load) requests() int {
	n := l.others.report().Requests
	if l.strict != nil {
		n += l.strict.Report().Requests + l.kept.Report().Requests
	}
	return n
}

// wait waits for n more requests.
func (l *load) wait(t *testing.T, n int) {
	t.Helper()
	until, deadline := l.requests()+n, time.Now().Add(patience)
	for l.requests() < until {
		if time.Now().After(deadline) {
			t.Fatalf("only %d requests, want %d", l.requests(), until)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// traffic is what all clients have seen.
type traffic struct {
	requests int
	failed   int
	errors   []error // of the first of them
	closed   int     // of a client that never repeats, on connections that the server had said it would keep
	versions []string
	longest  time.Duration
}

// stop ends the clients. What those lose that keep connections alive and never repeat is a failure, unless s
// closes such connections.
func (l *load) stop(t *testing.T, s server) traffic {
	t.Helper()
	reports := map[string]hammer.Report{"keeps connections, repeats": l.others.stop()}
	if l.strict != nil {
		reports["one connection each"], reports["keeps connections"] = l.strict.Stop(), l.kept.Stop()
	}
	var sum traffic
	for kind, r := range reports {
		sum.requests += r.Requests
		sum.longest = max(sum.longest, r.Longest)
		for body := range r.Bodies {
			sum.versions = append(sum.versions, firstLine(body))
		}
		if kind == "keeps connections" && s.closes != "" {
			sum.closed += r.Lost
			continue
		}
		sum.failed += r.Lost
		for _, text := range r.Errors {
			sum.errors = append(sum.errors, errors.New("a client that has "+kind+": "+text))
		}
	}
	return sum
}

// crowd are clients that ask again and again.
type crowd struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu  sync.Mutex
	sum hammer.Report
}

// gather starts clients; each asks with a function of its own.
func gather(client func() func() (string, error)) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{cancel: cancel, sum: hammer.Report{Bodies: map[string]int{}}}
	for range clients {
		ask := client()
		c.all.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				body, err := ask()
				c.count(body, err, time.Since(began))
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	return c
}

func (c *crowd) count(body string, err error, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Requests++
	c.sum.Longest = max(c.sum.Longest, took)
	if err == nil {
		c.sum.Bodies[body]++
		return
	}
	c.sum.Lost++
	if len(c.sum.Errors) < 10 {
		c.sum.Errors = append(c.sum.Errors, err.Error())
	}
}

func (c *crowd) report() hammer.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.sum
	r.Bodies, r.Errors = maps.Clone(r.Bodies), slices.Clone(r.Errors)
	return r
}

func (c *crowd) stop() hammer.Report {
	c.cancel()
	c.all.Wait()
	return c.report()
}

// browser is an HTTP client with a connection of its own that it keeps. As HTTP/1.1 wants it (RFC 9110,
// 9.2.2), it repeats a GET if a connection that had served before is closed without an answer; net/http does.
func browser(address string) func() (string, error) {
	client := &http.Client{Timeout: tooLate, Transport: &http.Transport{}}
	return func() (string, error) {
		resp, err := client.Get("http://" + address + "/")
		if err != nil {
			return "", err
		}
		return content(resp)
	}
}

// askHTTP asks on a connection of its own, once.
func askHTTP(i *instance, path string) (string, error) {
	conn, err := net.DialTimeout("tcp", i.address[0], tooLate)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(tooLate))
	method, body := "GET", ""
	if i.uploads && path == "/slow" {
		method, body = "POST", "late"
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", method, path, len(body)); err != nil {
		return "", err
	}
	if body != "" {
		time.Sleep(2 * time.Second)
		if _, err := io.WriteString(conn, body); err != nil {
			return "", err
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	return content(resp)
}

// content is the whole answer, which must be a good one.
func content(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// row is a line of what is printed at the end.
type row struct {
	server
	version  string
	swaps    int
	underWay int // slow requests that were answered by a generation that had been asked to drain
	cut      int // slow requests that were lost
	traffic
}

// count adds the slow requests of one swap, once they are all answered.
func (r *row) count(t *testing.T, s *slow) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatal("a slow request is never answered")
	}
	r.requests += s.requests
	r.underWay += s.underWay
	if r.losesSlow != "" {
		r.cut += len(s.errors)
		return
	}
	r.failed += len(s.errors)
	r.errors = append(r.errors, s.errors...)
}

// report is the table that is printed at the end.
type report struct {
	mu   sync.Mutex
	rows []row
}

func (r *report) add(row row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	position := func(row row) int {
		return slices.IndexFunc(servers, func(s server) bool { return s.name == row.name })
	}
	slices.SortFunc(r.rows, func(a, b row) int { return position(a) - position(b) })
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\tversion\tready by\tdrained by\tswaps\trequests\tslow, under way\tfailed\tlongest stall\tnotes")
	for _, row := range r.rows {
		var notes []string
		if row.closes != "" {
			notes = append(notes, fmt.Sprintf("%d lost by clients that never repeat: %s", row.closed, row.closes))
		}
		if row.since != "" {
			notes = append(notes, fmt.Sprintf("may lose %d at each stop: %s", row.loses, row.since))
		}
		if row.losesSlow != "" {
			notes = append(notes, fmt.Sprintf("%d slow ones cut: %s", row.cut, row.losesSlow))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%v\t%s\n", row.name, row.version, row.readyBy, row.drainedBy, row.swaps,
			row.requests, row.underWay, row.failed, row.longest.Round(time.Millisecond), strings.Join(notes, "; "))
	}
	w.Flush()
	return table.String()
}
