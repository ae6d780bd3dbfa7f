// Command load uses an HTTP server until it is told to stop, never retries, and prints what it saw as
// one JSON object. It runs inside containers, beside the server, and needs no other file.
//
// Three kinds of clients run at once: those that make a connection for every request, those that keep
// theirs (-keepalive), and an open loop, which begins a request at fixed times, however late the
// answers to the earlier ones are. Whatever is not answered whole, in time and with 200 is lost, a
// connection that cannot be made included.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
)

// warm is the number of answers after which load says on stderr that it runs.
const warm = 50

type options struct {
	url, get  string
	duration  time.Duration
	clients   int
	keepAlive bool
	pause     time.Duration
	rate      int
	slow      time.Duration
	timeout   time.Duration
}

func (o *options) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.StringVar(&o.url, "url", "", "the server: http://HOST:PORT")
	fs.StringVar(&o.get, "get", "", "print the answer to one request to this `URL`, and do nothing else")
	fs.DurationVar(&o.duration, "for", 0, "how long; 0: until TERM or INT")
	fs.IntVar(&o.clients, "clients", 4, "`number` of clients that make a connection for every request")
	fs.BoolVar(&o.keepAlive, "keepalive", false, "as many clients again that keep their connection")
	fs.DurationVar(&o.pause, "pause", 5*time.Millisecond, "between two requests of one client")
	fs.IntVar(&o.rate, "rate", 20, "requests per second of the open loop")
	fs.DurationVar(&o.slow, "slow", 0, "also begin a request each second whose answer takes so long (?delay= of test/app)")
	fs.DurationVar(&o.timeout, "timeout", 10*time.Second, "an answer that takes longer is lost; -slow comes on top")
	return fs
}

// report is what is printed. Times are in milliseconds.
type report struct {
	Requests    int                 `json:"requests"`
	Lost        int                 `json:"lost"`
	Slow        int                 `json:"slow"` // of the requests, those of -slow
	Connections int                 `json:"connections"`
	Seconds     float64             `json:"seconds"`
	Longest     float64             `json:"longest_ms"` // -slow ones do not count
	P50         float64             `json:"p50_ms"`     // of the clients that are no open loop
	P99         float64             `json:"p99_ms"`
	Kinds       map[hammer.Kind]int `json:"kinds,omitempty"` // of what was lost
	Answers     map[string]int      `json:"answers"`         // how often each body came
	Errors      []string            `json:"errors,omitempty"`
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns 0 where nothing was lost, 1 where something was, 2 for wrong arguments.
func run(args []string, stdout, stderr io.Writer) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stop)
	var o options
	fs := o.flags()
	fs.SetOutput(stderr)
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if o.get != "" {
		return get(o.get, o.timeout, stdout, stderr)
	}
	address, err := o.address()
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 2
	}
	r := o.run(address, stop, stderr)
	encoder := json.NewEncoder(stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		fmt.Fprintln(stderr, "load: cannot print the report:", err)
		return 1
	}
	return min(r.Lost, 1)
}

// address is the HOST:PORT of -url.
func (o options) address() (string, error) {
	u, err := url.Parse(o.url)
	if err != nil {
		return "", fmt.Errorf("cannot read -url: %w", err)
	}
	if u.Scheme != "http" || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return "", fmt.Errorf("-url %q: want http://HOST:PORT", o.url)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return u.Host, nil
}

// run loads the server until the time is over or stop says so.
func (o options) run(address string, stop <-chan os.Signal, stderr io.Writer) report {
	began := time.Now()
	load := hammer.Load{Network: "tcp", Address: address, Short: o.clients, Pause: o.pause, Timeout: o.timeout}
	if o.keepAlive {
		load.KeepAlive = o.clients
	}
	closed := hammer.Start(load)
	runs := []*hammer.Run{closed}
	if o.rate > 0 {
		runs = append(runs, hammer.Start(hammer.Load{Network: "tcp", Address: address, Short: 1, Rate: float64(o.rate), Timeout: o.timeout}))
	}
	var slow *hammer.Run
	if o.slow > 0 {
		slow = hammer.Start(hammer.Load{Network: "tcp", Address: address, Path: "/?delay=" + o.slow.String(), Short: 1, Rate: 1, Timeout: o.slow + o.timeout})
	}
	o.wait(stop, func() bool {
		answered := 0
		for _, l := range runs {
			seen := l.Report()
			answered += seen.Requests - seen.Lost
		}
		return answered >= warm
	}, stderr)

	sum := closed.Stop()
	r := report{Kinds: sum.Kinds, Answers: map[string]int{}}
	for _, l := range runs[1:] {
		add(&sum, l.Stop())
	}
	if slow != nil {
		seen := slow.Stop()
		r.Slow, seen.Longest = seen.Requests, 0
		add(&sum, seen)
	}
	for body, n := range sum.Bodies {
		r.Answers[strings.TrimSpace(body)] += n
	}
	r.Requests, r.Lost, r.Connections, r.Errors = sum.Requests, sum.Lost, sum.Connections, sum.Errors
	r.Seconds = time.Since(began).Round(time.Millisecond).Seconds()
	r.Longest, r.P50, r.P99 = milliseconds(sum.Longest), milliseconds(sum.P50), milliseconds(sum.P99)
	return r
}

// wait returns when the time is over or stop says so. Whoever started load is told once that it runs.
func (o options) wait(stop <-chan os.Signal, runs func() bool, stderr io.Writer) {
	var over <-chan time.Time
	if o.duration > 0 {
		over = time.After(o.duration)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-over:
			return
		case <-tick.C:
			if runs() {
				fmt.Fprintln(stderr, "load: running")
				tick.Stop()
			}
		}
	}
}

// add adds what other clients saw.
func add(to *hammer.Report, from hammer.Report) {
	to.Requests += from.Requests
	to.Lost += from.Lost
	to.Connections += from.Connections
	to.Longest = max(to.Longest, from.Longest)
	for kind, n := range from.Kinds {
		to.Kinds[kind] += n
	}
	for body, n := range from.Bodies {
		to.Bodies[body] += n
	}
	to.Errors = append(to.Errors, from.Errors...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// get prints one answer, and says on stderr when the request is on its way. Any status but 200 is a
// failure.
func get(url string, timeout time.Duration, stdout, stderr io.Writer) int {
	trace := &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		if info.Err == nil {
			fmt.Fprintln(stderr, "load: asked")
		}
	}}
	ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(context.Background(), trace), timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 2
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 1
	}
	defer resp.Body.Close()
	if _, err := io.Copy(stdout, resp.Body); err != nil {
		fmt.Fprintln(stderr, "load: cannot read the answer:", err)
		return 1
	}
	if resp.StatusCode != http.StatusOK {
		fmt.Fprintln(stderr, "load:", resp.Status)
		return 1
	}
	return 0
}
