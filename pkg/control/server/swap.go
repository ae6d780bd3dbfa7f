package server

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/supervisor"
)

// savedTimeout is how long a success waits to hear whether the command is on disk.
const savedTimeout = 2 * time.Second

func (s *Server) run(x *exchange) error {
	var r control.RunRequest
	if err := x.read(&r); err != nil {
		return err
	}
	change, err := changeOf(r)
	if err != nil {
		return err
	}
	return s.swap(x, supervisor.TriggerRun, r.SwapRequest, change)
}

func (s *Server) reload(x *exchange) error { return s.again(x, supervisor.TriggerReload) }

func (s *Server) rollback(x *exchange) error { return s.again(x, supervisor.TriggerRollback) }

func (s *Server) again(x *exchange, trigger supervisor.Trigger) error {
	var r control.SwapRequest
	if err := x.read(&r); err != nil {
		return err
	}
	return s.swap(x, trigger, r, supervisor.Change{})
}

// changeOf checks everything that would otherwise fail only in the candidate. What is wrong is named by its place, since it
// may hold a secret.
func changeOf(r control.RunRequest) (supervisor.Change, error) {
	change := supervisor.Change{Argv: r.Command, Dir: r.Cwd, Env: r.Env}
	if len(r.Command) > 0 && r.Command[0] == "" {
		return change, invalidf(http.StatusBadRequest, "command: the first word is empty")
	}
	if r.Cwd != "" && !filepath.IsAbs(r.Cwd) {
		return change, invalidf(http.StatusBadRequest, "cwd: %q is not an absolute path", r.Cwd)
	}
	for _, field := range []struct {
		name  string
		texts []string
	}{{"cwd", []string{r.Cwd}}, {"command", r.Command}, {"env", r.Env}} {
		if i := slices.IndexFunc(field.texts, func(text string) bool { return strings.ContainsRune(text, 0) }); i >= 0 {
			return change, invalidf(http.StatusBadRequest, "%s: number %d contains a zero byte", field.name, i+1)
		}
	}
	if i := slices.IndexFunc(r.Env, supervisor.NoEnvChange); i >= 0 {
		return change, invalidf(http.StatusBadRequest, "env: number %d is neither K=V nor K-", i+1)
	}
	var err error
	if change.Start, err = duration("start", r.Start); err != nil {
		return change, err
	}
	change.Stop, err = duration("stop", r.Stop)
	return change, err
}

func duration(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := control.ParseDuration(text)
	if err != nil {
		return 0, invalidf(http.StatusBadRequest, "%s: %v", field, err)
	}
	return d, nil
}

func (s *Server) swap(x *exchange, trigger supervisor.Trigger, r control.SwapRequest, change supervisor.Change) error {
	began, from := time.Now(), s.Supervisor.Status().Current
	ticket, err := s.Supervisor.Swap(x.Context(), supervisor.Request{
		Trigger: trigger, Change: change, IfPID: r.PID, IfGeneration: r.Generation, Force: r.Force, Asker: x.asker,
	})
	if err != nil {
		return err
	}
	if err := x.begin(); err != nil {
		return err
	}
	if !r.Wait && ticket.PID != 0 {
		return s.started(x, trigger, from, ticket, began)
	}
	outcome, err := s.follow(x, ticket)
	if err != nil {
		return err
	}
	return s.conclude(x, outcome)
}

// started ends the stream of who does not wait for the outcome.
func (s *Server) started(x *exchange, trigger supervisor.Trigger, from int, t supervisor.Ticket, began time.Time) error {
	f := follower{x: x, sup: s.Supervisor, seq: t.Seq, swap: t.ID}
	if _, err := f.write(); err != nil {
		return err
	}
	result := control.Result{
		OK: true, Trigger: string(trigger), From: from, Generation: t.Generation, PID: t.PID,
		Seconds: time.Since(began).Seconds(),
	}
	result.Current, result.CurrentPID = currentOf(s.Supervisor.Status())
	return x.line(control.Progress{Result: &result})
}

// follow writes the events of a swap until it has its outcome.
func (s *Server) follow(x *exchange, t supervisor.Ticket) (supervisor.Outcome, error) {
	f := follower{x: x, sup: s.Supervisor, seq: t.Seq, swap: t.ID}
	for {
		more, err := f.write()
		if err != nil {
			return supervisor.Outcome{}, err
		}
		select {
		case <-more:
		case outcome := <-t.Done:
			_, err := f.write() // its events were published before it
			return outcome, err
		case <-x.Context().Done():
			return supervisor.Outcome{}, x.Context().Err()
		case <-s.Supervisor.Done():
			select {
			case outcome := <-t.Done: // both were ready
				_, err := f.write()
				return outcome, err
			default:
				return supervisor.Outcome{}, f.crankEnded()
			}
		}
	}
}

// conclude writes the outcome as the last line.
func (s *Server) conclude(x *exchange, o supervisor.Outcome) error {
	result := resultFrom(o)
	if o.OK {
		result.Saved = s.saved(x.Context(), o.Saved)
		return x.line(control.Progress{Result: &result})
	}
	failure := &control.Error{Code: control.CodeFailed, Message: "swap failed, " + stillServing(o.Current, o.CurrentPID)}
	if err := x.line(control.Progress{Result: &result, Error: failure}); err != nil {
		return err
	}
	return failure
}

func stillServing(generation, pid int) string {
	if generation == 0 {
		return "nothing is serving"
	}
	return fmt.Sprintf("generation %d (pid %d) still serving", generation, pid)
}

// saved waits a moment to hear whether the command is on disk.
func (s *Server) saved(ctx context.Context, done <-chan error) control.Saved {
	if done == nil {
		return control.IsOff
	}
	timeout := time.NewTimer(s.savedTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		if err != nil {
			return control.Saved(err.Error())
		}
		return control.IsSaved
	case <-timeout.C:
	case <-ctx.Done():
	}
	return control.IsPending
}

func (s *Server) abort(x *exchange) error {
	var r control.AbortRequest
	if err := x.read(&r); err != nil {
		return err
	}
	before := s.Supervisor.Status()
	generation, err := s.Supervisor.Abort(x.Context(), x.asker)
	if err != nil {
		return err
	}
	result := control.Result{OK: true, From: before.Current, Generation: generation}
	if g := find(before, generation); g != nil {
		result.PID = g.PID
	}
	result.Current, result.CurrentPID = currentOf(s.Supervisor.Status())
	return x.answer(http.StatusOK, result)
}
