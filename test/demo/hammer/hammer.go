// Package hammer loads an HTTP server with clients that never retry, so that every request which
// is not answered is seen.
//
// net/http's own client would hide most losses: it sends a request again when a kept-alive
// connection turns out to be closed.
package hammer

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Load says what to send where.
type Load struct {
	Network, Address string
	Path             string        // and query; empty: /
	KeepAlive        int           // clients that keep their connection until the server closes it
	Short            int           // clients that make a connection for every request
	Pause            time.Duration // between two requests of one client
	Timeout          time.Duration // an answer that takes longer is lost; 0: 10 s
	// Rate makes it an open loop, with so many requests a second: each begins at its time, however late the
	// answers to the earlier ones are, and what it is late by counts as its latency. KeepAlive and Short are
	// the shares of requests on kept connections and on connections of their own then, and there is no Pause.
	Rate float64
}

// Report is what the clients saw.
type Report struct {
	Requests    int
	Lost        int // refused, reset, cut short, too late, or not 200
	LostKept    int // of these, on a connection that had been used before
	Connections int
	Longest     time.Duration  // for one request, with the dial
	P50, P99    time.Duration  // of all requests, at most a 64th too long
	Kinds       map[Kind]int   // of what was lost
	Bodies      map[string]int // how often each body was the answer
	Errors      []string       // of the first few that were lost
}

// Kind is a way to lose a request.
type Kind string

const (
	Refused Kind = "refused" // nobody listens
	Reset   Kind = "reset"   // or the pipe is broken
	EOF     Kind = "EOF"     // closed before the whole answer
	Timeout Kind = "timeout"
	Status  Kind = "status" // an answer, but not 200
	Other   Kind = "other"
)

// kindOf says in which way err lost a request.
func kindOf(err error) Kind {
	var status statusError
	var late net.Error
	switch {
	case errors.As(err, &status):
		return Status
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return EOF
	case errors.As(err, &late) && late.Timeout():
		return Timeout
	}
	return Other
}

// statusError is the status of an answer that is not 200.
type statusError string

func (e statusError) Error() string { return string(e) }

// maxErrors is how many errors a Report keeps.
const maxErrors = 10

// Run is a load that has been started.
type Run struct {
	load    Load
	cancel  context.CancelFunc
	clients sync.WaitGroup

	mu        sync.Mutex
	report    Report
	latencies latencies
}

// Start starts the clients. Stop ends them.
func Start(load Load) *Run {
	if load.Timeout == 0 {
		load.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Run{load: load, cancel: cancel, report: Report{Kinds: map[Kind]int{}, Bodies: map[string]int{}}}
	if load.Rate > 0 {
		r.clients.Go(func() { r.open(ctx) })
		return r
	}
	for i := range load.KeepAlive + load.Short {
		r.clients.Go(func() { r.client(ctx, i < load.KeepAlive) })
	}
	return r
}

// Stop lets every client finish the request that it has begun, and returns the report.
func (r *Run) Stop() Report {
	r.cancel()
	r.clients.Wait()
	return r.Report()
}

// Report returns what was seen so far.
func (r *Run) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.report
	report.Kinds, report.Bodies = maps.Clone(report.Kinds), maps.Clone(report.Bodies)
	report.P50, report.P99 = r.latencies.quantile(0.5), r.latencies.quantile(0.99)
	return report
}

func (r *Run) client(ctx context.Context, keepAlive bool) {
	var c connection
	defer c.close()
	for ctx.Err() == nil {
		began := time.Now()
		body, err := c.request(r.load, keepAlive)
		r.count(&c, time.Since(began), body, err)
		select {
		case <-ctx.Done():
		case <-time.After(r.load.Pause):
		}
	}
}

// count counts the last request of c.
func (r *Run) count(c *connection, took time.Duration, body string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Requests++
	r.report.Longest = max(r.report.Longest, took)
	r.latencies.add(took)
	if c.fresh {
		r.report.Connections++
	}
	if err == nil {
		r.report.Bodies[body]++
		return
	}
	r.report.Lost++
	if !c.fresh {
		r.report.LostKept++
	}
	r.report.Kinds[kindOf(err)]++
	if len(r.report.Errors) < maxErrors {
		r.report.Errors = append(r.report.Errors, err.Error())
	}
}

// connection is a client's connection; the zero value is none yet.
type connection struct {
	conn   net.Conn
	reader *bufio.Reader
	fresh  bool // made for the last request
	served int
}

// request sends one GET and reads the whole answer. The connection is closed after an error, or
// where either side asked for it.
func (c *connection) request(load Load, keepAlive bool) (body string, err error) {
	c.fresh = c.conn == nil
	deadline := time.Now().Add(load.Timeout)
	if c.fresh {
		if c.conn, err = net.DialTimeout(load.Network, load.Address, load.Timeout); err != nil {
			c.conn = nil
			return "", err
		}
		c.reader, c.served = bufio.NewReader(c.conn), 0
	}
	c.conn.SetDeadline(deadline)
	body, closed, err := c.exchange(load.Path, keepAlive)
	if err != nil {
		err = fmt.Errorf("request %d on a connection: %w", c.served+1, err)
	}
	c.served++
	if err != nil || closed || !keepAlive {
		c.close()
	}
	return body, err
}

func (c *connection) exchange(path string, keepAlive bool) (body string, closed bool, err error) {
	request := "GET " + cmp.Or(path, "/") + " HTTP/1.1\r\nHost: app\r\n"
	if !keepAlive {
		request += "Connection: close\r\n"
	}
	if _, err := io.WriteString(c.conn, request+"\r\n"); err != nil {
		return "", false, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = statusError(resp.Status)
	}
	return string(content), resp.Close, err
}

func (c *connection) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
