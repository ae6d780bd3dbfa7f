// Package probe asks an app over the network whether it is ready, and makes sure that it is that app which answers.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Target is what is asked: http://HOST:PORT/PATH, which has to answer with 2xx or 3xx (a redirect is not followed), or
// tcp://HOST:PORT, which has to accept a connection. In either, {slot}, {generation} and {pid} are replaced by the candidate's.
type Target struct{ text string }

// candidate is the generation that is asked.
type candidate struct{ generation, slot, pid int }

// first has the lowest numbers that a candidate can have: what is not an address with these never is one, since larger numbers only make
// the port larger.
var first = candidate{generation: 1, slot: 0, pid: 1}

// Parse parses a Target. An error is one for the first candidate, and so for all.
func Parse(text string) (Target, error) {
	t := Target{text}
	if _, err := t.url(first); err != nil {
		return Target{}, fmt.Errorf("invalid address %q: %w", text, err)
	}
	return t, nil
}

// String returns the text that was parsed.
func (t Target) String() string { return t.text }

// url returns the address of one generation.
func (t Target) url(c candidate) (*url.URL, error) {
	numbers := strings.NewReplacer("{slot}", strconv.Itoa(c.slot), "{generation}", strconv.Itoa(c.generation), "{pid}", strconv.Itoa(c.pid))
	u, err := url.Parse(numbers.Replace(t.text))
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, err
	}
	if u.Scheme == "http" && u.Port() == "" {
		u.Host = strings.TrimSuffix(u.Host, ":") + ":80"
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "http" && u.Scheme != "tcp":
		return nil, errors.New("want http://HOST:PORT/PATH or tcp://HOST:PORT")
	case u.Hostname() == "":
		return nil, errors.New("want a host, such as 127.0.0.1")
	case wrongIP(u.Hostname()):
		return nil, fmt.Errorf("want an address, not %q", u.Hostname())
	case err != nil || port == 0:
		return nil, fmt.Errorf("want a port from 1 to 65535, not %q", u.Port())
	case u.User != nil, u.Fragment != "":
		return nil, errors.New("want neither a user nor a fragment")
	case u.Scheme == "tcp" && (u.Path != "" || u.RawQuery != ""):
		return nil, errors.New("want no path after tcp://HOST:PORT")
	}
	return u, nil
}

// wrongIP reports whether host looks like an IP address but is not one: it would be looked up as a name, in vain.
func wrongIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && (strings.Trim(host, "0123456789.") == "" || strings.ContainsRune(host, ':'))
}

// likelySlots is how many slots Shares looks at: a swap needs two, and more if generations drain for long.
const likelySlots = 10

// Shares reports whether the target may be answered on a socket that is bound to addr: the port is the same, and so is
// the host, or either is a wildcard. That is checked for the first generation, and for the slots that a later one is likely to have. A port
// that contains {pid} is not known yet: false.
func (t Target) Shares(addr netip.AddrPort) bool {
	c := first
	for c.slot = range likelySlots {
		if t.sharesAs(c, addr) {
			return true
		}
	}
	return false
}

func (t Target) sharesAs(c candidate, addr netip.AddrPort) bool {
	_, authority, _ := strings.Cut(t.text, "://")
	if end := strings.IndexAny(authority, "/?"); end >= 0 {
		authority = authority[:end]
	}
	port := authority[strings.LastIndexByte(authority, ':')+1:]
	u, err := t.url(c)
	if err != nil || strings.Contains(port, "{pid}") || u.Port() != strconv.Itoa(int(addr.Port())) {
		return false
	}
	bound := addr.Addr().Unmap().WithZone("")
	if bound.IsUnspecified() {
		return true
	}
	if u.Hostname() == "localhost" {
		return bound.IsLoopback()
	}
	host, err := netip.ParseAddr(u.Hostname())
	return err == nil && (host.IsUnspecified() || host.Unmap().WithZone("") == bound)
}

// Processes tells whose a process is. Its methods are called by several goroutines.
type Processes interface {
	// Members returns the processes of a generation.
	Members(generation int) []int
	// Owner returns the generation of a process; 0: it belongs to none.
	Owner(pid int) int
}

// Prober asks one Target. It is a supervisor.Prober.
type Prober struct {
	target    Target
	timeout   time.Duration
	processes Processes
	client    *http.Client
}

// New returns a Prober whose probes take at most timeout, which is more than 0.
func New(t Target, timeout time.Duration, p Processes) *Prober {
	return &Prober{target: t, timeout: timeout, processes: p, client: &http.Client{
		// Each probe has a connection of its own, and no proxy.
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: new(net.Dialer).DialContext, MaxResponseHeaderBytes: maxHeader},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

const (
	maxHeader = 64 << 10
	maxBody   = 64 << 10 // so much of an answer is read, for the app not to see a reset
)

// Probe implements supervisor.Prober.
func (p *Prober) Probe(generation, slot, pid int, done func(final bool, err error)) (cancel func()) {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	go func() { // ends with ctx at the latest, and when done has returned
		defer cancel()
		done(p.probe(ctx, candidate{generation, slot, pid}))
	}()
	return cancel
}

// probe asks once. The error starts with what was asked. final: the candidate's numbers make no valid address.
func (p *Prober) probe(ctx context.Context, c candidate) (final bool, err error) {
	u, err := p.target.url(c)
	if err != nil {
		return true, fmt.Errorf("-ready %s is not valid for generation %d, slot %d, pid %d: %w: use {slot}, which stays small, "+
			"or a lower number", p.target, c.generation, c.slot, c.pid, err)
	}
	return false, p.ask(ctx, u, c)
}

// ask sends one probe to an address.
func (p *Prober) ask(ctx context.Context, u *url.URL, c candidate) error {
	what, ask := u.String(), p.connect
	if u.Scheme == "http" {
		what, ask = "GET "+what, p.get
	}
	answered, err := ask(ctx, u)
	if err != nil {
		err = p.plain(err)
	} else if err = p.verify(answered, c.generation, c.pid); err == nil {
		return nil
	}
	if wrong, ok := errors.AsType[wrongAnswer](err); ok {
		return fmt.Errorf("%s %w", what, wrong)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// wrongAnswer says what is wrong with an answer. It reads on after what was asked.
type wrongAnswer string

func (w wrongAnswer) Error() string { return string(w) }

func wrongf(format string, args ...any) error { return wrongAnswer(fmt.Sprintf(format, args...)) }

// plain takes off what net and net/http put around an error: the address was said already.
func (p *Prober) plain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer in %v (-ready-timeout)", p.timeout)
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// connect makes a connection, and returns the address that took it.
func (p *Prober) connect(ctx context.Context, u *url.URL) (netip.AddrPort, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer conn.Close()
	return addrPort(conn.RemoteAddr()), nil
}

// get makes a request, and returns the address that answered well.
func (p *Prober) get(ctx context.Context, u *url.URL) (answered netip.AddrPort, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { answered = addrPort(i.Conn.RemoteAddr()) }}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, u.String(), nil)
	if err != nil {
		return netip.AddrPort{}, err
	}
	request.Header.Set("User-Agent", "crank")
	response, err := p.client.Do(request)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxBody) // the status is the answer
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return netip.AddrPort{}, wrongf("answered %d", response.StatusCode)
	}
	return answered, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return tcp.AddrPort()
}
