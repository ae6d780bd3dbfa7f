package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
)

// openLoop begins a request at fixed times, each on a connection of its own. net/http does not repeat
// a request on a fresh connection, so every loss is seen.
type openLoop struct {
	url      string
	client   http.Client
	cancel   context.CancelFunc
	requests sync.WaitGroup

	mu   sync.Mutex
	seen hammer.Report
}

// startOpenLoop begins rate requests per second, none where that is 0. stop ends it.
func startOpenLoop(url string, rate int, timeout time.Duration) *openLoop {
	ctx, cancel := context.WithCancel(context.Background())
	l := &openLoop{
		url:    url,
		client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: timeout},
		cancel: cancel,
		seen:   hammer.Report{Kinds: map[hammer.Kind]int{}, Bodies: map[string]int{}},
	}
	if rate > 0 {
		l.requests.Go(func() { l.run(ctx, time.Second/time.Duration(rate)) })
	}
	return l
}

func (l *openLoop) run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.requests.Go(l.request)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *openLoop) request() {
	began := time.Now()
	body, err := l.get()
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen.Requests++
	l.seen.Connections++
	l.seen.Longest = max(l.seen.Longest, took)
	if err == nil {
		l.seen.Bodies[body]++
		return
	}
	l.seen.Lost++
	l.seen.Kinds[kindOf(err)]++
	if len(l.seen.Errors) < maxErrors {
		l.seen.Errors = append(l.seen.Errors, err.Error())
	}
}

// errStatus is an answer, but not 200.
var errStatus = errors.New("status")

// kindOf says in which way err lost a request, in hammer's words.
func kindOf(err error) hammer.Kind {
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, errStatus):
		return hammer.Status
	case errors.Is(err, syscall.ECONNREFUSED):
		return hammer.Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return hammer.Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return hammer.EOF
	case errors.As(err, &late) && late.Timeout():
		return hammer.Timeout
	}
	return hammer.Other
}

// maxErrors is how many errors are kept.
const maxErrors = 10

func (l *openLoop) get() (string, error) {
	resp, err := l.client.Get(l.url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w: %s", errStatus, resp.Status)
	}
	return string(body), err
}

func (l *openLoop) report() hammer.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	seen.Kinds, seen.Bodies = maps.Clone(seen.Kinds), maps.Clone(seen.Bodies)
	return seen
}

// stop begins no more requests, waits for the answers, and returns what was seen.
func (l *openLoop) stop() hammer.Report {
	l.cancel()
	l.requests.Wait()
	return l.report()
}
