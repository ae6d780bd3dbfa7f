package server

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/supervisor"
)

// pollInterval is how often a wait looks at the status although no event came.
const pollInterval = 500 * time.Millisecond

// follower writes the events after seq to a stream, each once.
type follower struct {
	x    *exchange
	sup  Supervisor
	seq  int64
	swap int64 // only the events of this swap; 0: all
}

// write sends what is new, and returns what is closed when there is more.
func (f *follower) write() (more <-chan struct{}, err error) {
	events, more := f.sup.Events(f.seq)
	for _, e := range events {
		f.seq = e.Seq
		if f.swap != 0 && e.Swap != f.swap {
			continue
		}
		event := eventFrom(e)
		if err := f.x.line(control.Progress{Event: &event}); err != nil {
			return nil, err
		}
	}
	return more, nil
}

// crankEnded writes the last line of a stream that crank did not live to finish.
func (f *follower) crankEnded() error {
	ended := &control.Error{Code: control.CodeFailed, Message: "crank itself has ended"}
	return cmp.Or[error](f.x.line(control.Progress{Error: ended}), ended)
}

// events sends the kept events, and with follow=true the later ones, until the client goes.
func (s *Server) events(x *exchange) error {
	if err := x.onlyQuery("follow", "since"); err != nil {
		return err
	}
	follow, err := queryBool(x, "follow")
	if err != nil {
		return err
	}
	since, err := queryInt(x, "since")
	if err != nil {
		return err
	}
	if err := x.begin(); err != nil {
		return err
	}
	f := follower{x: x, sup: s.Supervisor, seq: int64(since)}
	for {
		more, err := f.write()
		if err != nil || !follow {
			return err
		}
		select {
		case <-more:
		case <-x.Context().Done():
			return nil
		case <-s.Supervisor.Done():
			if _, err := f.write(); err != nil {
				return err
			}
			return f.crankEnded()
		}
	}
}

// wait sends all events until what was asked for is true, or can no longer become true.
func (s *Server) wait(x *exchange) error {
	reached, err := goal(x)
	if err != nil {
		return err
	}
	if err := x.begin(); err != nil {
		return err
	}
	began := time.Now()
	f := follower{x: x, sup: s.Supervisor, seq: newest(s.Supervisor)}
	tick := time.NewTicker(s.pollInterval)
	defer tick.Stop()
	for {
		more, err := f.write()
		if err != nil {
			return err
		}
		status := s.Supervisor.Status()
		if done, failure := reached(status); done {
			return waited(x, status, began, failure)
		}
		select {
		case <-more:
		case <-tick.C: // a status can change without an event
		case <-x.Context().Done():
			return nil
		case <-s.Supervisor.Done():
			return f.crankEnded()
		}
	}
}

func waited(x *exchange, status *supervisor.Status, began time.Time, failure string) error {
	result := control.Result{OK: failure == "", Reason: failure, Seconds: time.Since(began).Seconds()}
	result.Current, result.CurrentPID = currentOf(status)
	result.Generation, result.PID = result.Current, result.CurrentPID
	if failure == "" {
		return x.line(control.Progress{Result: &result})
	}
	wire := &control.Error{Code: control.CodeFailed, Message: failure}
	return cmp.Or[error](x.line(control.Progress{Result: &result, Error: wire}), wire)
}

// goal returns what a wait waits for: a function that says whether it is decided, and why not well.
func goal(x *exchange) (func(*supervisor.Status) (done bool, failure string), error) {
	if err := x.onlyQuery("for", "generation"); err != nil {
		return nil, err
	}
	n, err := queryInt(x, "generation")
	if err != nil {
		return nil, err
	}
	what := x.URL.Query().Get("for")
	if (what == "generation") != (n > 0) {
		return nil, invalidf(http.StatusBadRequest, "generation=N goes with for=generation")
	}
	switch what {
	case "ready":
		return isReady, nil
	case "idle":
		return isIdle, nil
	case "generation":
		return func(s *supervisor.Status) (bool, string) { return isCurrent(s, n) }, nil
	}
	return nil, invalidf(http.StatusBadRequest, "for=%q: it must be ready, idle or generation", what)
}

func isReady(s *supervisor.Status) (bool, string) {
	if s.Stopping {
		return true, "crank is stopping"
	}
	return s.Ready, ""
}

// isIdle: no generation is starting, settling or leaving.
func isIdle(s *supervisor.Status) (bool, string) {
	for _, g := range s.Generations {
		if g.State != supervisor.Ready && g.State != supervisor.Exited {
			return false, ""
		}
	}
	return s.Candidate == 0, ""
}

// isCurrent: a generation that has left, or that a later one has followed, never becomes current.
func isCurrent(s *supervisor.Status, n int) (bool, string) {
	if s.Current == n {
		return true, ""
	}
	if s.Stopping {
		return true, "crank is stopping"
	}
	g := find(s, n)
	if g != nil && g.State < supervisor.Stopping {
		return false, ""
	}
	newest := s.Current
	if s.LastSwap != nil {
		newest = max(newest, s.LastSwap.Generation)
	}
	for _, g := range s.Generations {
		newest = max(newest, g.Generation)
	}
	if n > newest {
		return false, ""
	}
	return true, fmt.Sprintf("generation %d is not current and will not be, %s", n, stillServing(currentOf(s)))
}

// newest returns the number of the last event so far.
func newest(sup Supervisor) int64 {
	events, _ := sup.Events(0)
	if len(events) == 0 {
		return 0
	}
	return events[len(events)-1].Seq
}

func queryInt(x *exchange, key string) (int, error) {
	text := x.URL.Query().Get(key)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, invalidf(http.StatusBadRequest, "%s=%q: it must be a number", key, text)
	}
	return n, nil
}

func queryBool(x *exchange, key string) (bool, error) {
	text := x.URL.Query().Get(key)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, invalidf(http.StatusBadRequest, "%s=%q: it must be true or false", key, text)
	}
	return b, nil
}
