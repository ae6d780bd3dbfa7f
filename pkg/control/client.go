package control

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ErrUnreachable is what every error wraps that kept a request from being sent.
var ErrUnreachable = errors.New("crank cannot be reached")

// ErrLost is wrapped where an answer ended early: whether the request was carried out is not known.
var ErrLost = errors.New("the connection to crank was lost: look with crankctl status")

// The most that is read: what a server sends without an end must not fill the memory of a container that crankctl shares with the
// app.
const (
	maxReadyAnswer = 64 << 10
	maxAnswer      = 32 << 20 // a whole answer, or a line of a stream
)

// Client sends requests to one instance. Every request uses a connection of its own, and Dial first checks who
// answers on it: the request may hold secrets, and the response is trusted.
//
// A refusal, and an operation that failed, is an *Error. Methods end early, with ctx's error, only
// on this side: a swap that crank has accepted goes on. They are safe for concurrent use.
type Client struct {
	network, address string
	token            string
	name             atomic.Value // string
	http             http.Client
}

// NewClient returns a client for the control socket at address: a path, or tcp://HOST:PORT, for
// which tokenFile names the file with the token. It does not connect.
func NewClient(address, tokenFile string) (*Client, error) {
	c := &Client{network: "unix", address: strings.TrimPrefix(address, "unix://")}
	c.name.Store(strings.TrimSuffix(filepath.Base(c.address), ".ctl"))
	if hostport, ok := strings.CutPrefix(address, "tcp://"); ok {
		c.network, c.address = "tcp", hostport
		c.name.Store("crank")
		if tokenFile == "" {
			return nil, fmt.Errorf("%w: a TCP address needs a token: name its file in CRANK_CTL_TOKEN_FILE", ErrUnreachable)
		}
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("%w: a TCP address needs CRANK_CTL_TOKEN_FILE: %w", ErrUnreachable, err)
		}
		c.token = strings.TrimSpace(string(token))
	}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.Dial(ctx)
		},
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// Name returns what the crank that answered last calls itself; before that, what its address says.
func (c *Client) Name() string { return c.name.Load().(string) }

// Info returns what crank says about itself.
func (c *Client) Info(ctx context.Context) (info Info, err error) {
	return info, c.call(ctx, http.MethodGet, PathInfo, nil, &info)
}

// Status returns the whole state.
func (c *Client) Status(ctx context.Context) (status Status, err error) {
	return status, c.call(ctx, http.MethodGet, PathStatus, nil, &status)
}

// PS returns the generations in these states (none: any) and, unless it is 0, with this pid.
func (c *Client) PS(ctx context.Context, states []string, pid int) (found []Generation, err error) {
	query := url.Values{}
	if len(states) > 0 {
		query.Set("state", strings.Join(states, ","))
	}
	if pid != 0 {
		query.Set("pid", strconv.Itoa(pid))
	}
	return found, c.call(ctx, http.MethodGet, PathPS+"?"+query.Encode(), nil, &found)
}

// Run swaps to another command. Every event is passed to observe, which may be nil. Where the swap
// failed, the Result has the details and the error is an *Error.
func (c *Client) Run(ctx context.Context, r RunRequest, observe func(Event)) (*Result, error) {
	return c.stream(ctx, http.MethodPost, PathRun, r, observe)
}

// Reload swaps to the same command; otherwise like Run.
func (c *Client) Reload(ctx context.Context, r SwapRequest, observe func(Event)) (*Result, error) {
	return c.stream(ctx, http.MethodPost, PathReload, r, observe)
}

// Rollback swaps to the last different good command; otherwise like Run.
func (c *Client) Rollback(ctx context.Context, r SwapRequest, observe func(Event)) (*Result, error) {
	return c.stream(ctx, http.MethodPost, PathRollback, r, observe)
}

// Abort stops the candidate and returns which one that was.
func (c *Client) Abort(ctx context.Context) (result Result, err error) {
	return result, c.call(ctx, http.MethodPost, PathAbort, AbortRequest{}, &result)
}

// Kill sends a signal and returns who got it.
func (c *Client) Kill(ctx context.Context, r KillRequest) (result KillResult, err error) {
	return result, c.call(ctx, http.MethodPost, PathKill, r, &result)
}

// Wait blocks until crank is "ready" or "idle", or, for "generation", until that one is current.
func (c *Client) Wait(ctx context.Context, what string, generation int, observe func(Event)) (*Result, error) {
	query := url.Values{"for": {what}}
	if generation > 0 {
		query.Set("generation", strconv.Itoa(generation))
	}
	return c.stream(ctx, http.MethodGet, PathWait+"?"+query.Encode(), nil, observe)
}

// Events passes the kept events after since to observe and, with follow, the later ones, until ctx
// or crank ends.
func (c *Client) Events(ctx context.Context, since int64, follow bool, observe func(Event)) error {
	query := url.Values{"follow": {strconv.FormatBool(follow)}, "since": {strconv.FormatInt(since, 10)}}
	_, err := c.stream(ctx, http.MethodGet, PathEvents+"?"+query.Encode(), nil, observe)
	if errors.Is(err, io.EOF) && !follow {
		return nil // a list has no last line to miss
	}
	return err
}

// call sends one request and decodes its answer.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(into); err != nil {
		return c.lost(ctx, err)
	}
	return nil
}

// stream sends one request and reads its lines up to the last.
func (c *Client) stream(ctx context.Context, method, path string, body any, observe func(Event)) (*Result, error) {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var line Progress
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, c.lost(ctx, err)
		}
		switch {
		case line.Error != nil:
			return line.Result, line.Error
		case line.Result != nil:
			return line.Result, nil
		case line.Event != nil && observe != nil:
			observe(*line.Event)
		}
	}
	return nil, c.lost(ctx, cmp.Or(lines.Err(), io.EOF))
}

// lost is the error for an answer that ended early.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w (%w)", ErrLost, err)
}

// send returns the response if it is a success, which the caller closes, else its Error.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://crank"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	if name := response.Header.Get(HeaderName); name != "" {
		c.name.Store(name)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxReadyAnswer))
	return nil, errorOf(response.Status, text)
}

// unanswered strips the URL, which says nothing, from the transport's error.
func (c *Client) unanswered(ctx context.Context, err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	if ctx.Err() != nil || errors.Is(err, ErrUnreachable) {
		return err
	}
	return c.lost(ctx, err)
}

// errorOf reads the Error of an answer that is no success.
func errorOf(status string, body []byte) error {
	var wire Error
	if err := json.Unmarshal(body, &wire); err != nil || wire.Message == "" {
		return &Error{Code: CodeSelf, Message: fmt.Sprintf("unexpected answer %q: is this crank's control socket?", status)}
	}
	return &wire
}

// Ready asks whether crank is ready. Probes call it every second: it writes its request by hand,
// and so starts no goroutines and no connection pool.
func (c *Client) Ready(ctx context.Context) (ready Ready, err error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return ready, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := "GET " + PathReady + " HTTP/1.0\r\nHost: crank\r\n"
	if c.token != "" {
		request += "Authorization: Bearer " + c.token + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return ready, c.lost(ctx, err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxReadyAnswer))
	if err != nil {
		return ready, c.lost(ctx, err)
	}
	return parseReady(answer)
}

// parseReady reads an HTTP/1.0 answer: a status line, headers, an empty line, the body to the end.
func parseReady(answer []byte) (ready Ready, err error) {
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	if !ok {
		return ready, ErrLost
	}
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	_, status, _ := strings.Cut(string(line), " ")
	code, _, _ := strings.Cut(status, " ")
	if code != "200" && code != "503" {
		return ready, errorOf(status, body)
	}
	if err := json.Unmarshal(body, &ready); err != nil {
		return ready, fmt.Errorf("%w (%w)", ErrLost, err)
	}
	if ready.Ready != (code == "200") {
		return Ready{}, errorOf(status, nil)
	}
	return ready, nil
}
