package server

import (
	"cmp"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/supervisor"
)

// The conversions from what the supervisor publishes to what goes over the wire.

func (s *Server) wholeStatus(now time.Time) control.Status {
	from := s.Supervisor.Status()
	status := control.Status{
		Name: from.Name, Ready: from.Ready, Stopping: from.Stopping, Reason: from.Reason,
		Current: from.Current, Candidate: from.Candidate, Started: from.Started,
		Generations: []control.Generation{}, Sockets: s.Info().Sockets,
	}
	for _, g := range from.Generations {
		status.Generations = append(status.Generations, s.generation(g, now))
	}
	if from.LastSwap != nil {
		last := resultFrom(*from.LastSwap)
		status.LastSwap = &last
	}
	if !from.RestartAt.IsZero() {
		status.BackoffSeconds = seconds(max(0, from.RestartAt.Sub(now)))
	}
	return status
}

func (s *Server) generation(g supervisor.GenerationStatus, now time.Time) control.Generation {
	wire := control.Generation{
		Generation: g.Generation, Slot: g.Slot, PID: g.PID, State: g.State.String(),
		Started: g.Started, AgeSeconds: now.Sub(g.Started).Seconds(), StateSeconds: now.Sub(g.Since).Seconds(),
		Status: g.Text, Command: s.Redact(g.Command.Argv), Cwd: cmp.Or(g.Command.Dir, s.Cwd),
		Trigger: string(g.Trigger), Asker: askerFrom(g.Asker), Others: g.Others,
		Reloading: g.Reloading, MissedWatchdog: g.Missed,
	}
	if !g.ReadyAt.IsZero() {
		wire.ReadySeconds = seconds(g.ReadyAt.Sub(g.Started))
	}
	if !g.Deadline.IsZero() {
		wire.LimitSeconds = seconds(g.Deadline.Sub(g.Since))
	}
	return wire
}

func resultFrom(o supervisor.Outcome) control.Result {
	result := control.Result{
		OK: o.OK, Trigger: string(o.Trigger), From: o.From, Generation: o.Generation, PID: o.PID,
		Current: o.Current, CurrentPID: o.CurrentPID, Seconds: o.Took.Seconds(),
		Reason: o.Reason, Stderr: o.Stderr.Lines, StderrNote: o.Stderr.Note,
	}
	if o.ExitCode >= 0 && !o.OK {
		result.ExitCode = &o.ExitCode
	}
	return result
}

func eventFrom(e supervisor.Event) control.Event {
	return control.Event{
		Seq: e.Seq, Time: e.Time, Generation: e.Generation, PID: e.PID, Kind: e.Kind,
		From: e.From, To: e.To, Cause: e.Cause, Status: e.Text, Seconds: e.Took.Seconds(),
		Trigger: string(e.Trigger), Asker: askerFrom(e.Asker), Stderr: e.Stderr.Lines,
	}
}

// askerFrom leaves out the zero value, which is crank itself.
func askerFrom(a supervisor.Asker) *control.Asker {
	if a == (supervisor.Asker{}) {
		return nil
	}
	return &control.Asker{UID: a.UID, PID: a.PID, Name: a.Name}
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// find returns generation n, nil where it is not known any more.
func find(s *supervisor.Status, n int) *supervisor.GenerationStatus {
	for i := range s.Generations {
		if s.Generations[i].Generation == n {
			return &s.Generations[i]
		}
	}
	return nil
}

// currentOf returns the current generation and its pid, zeros where there is none.
func currentOf(s *supervisor.Status) (generation, pid int) {
	if g := find(s, s.Current); g != nil {
		pid = g.PID
	}
	return s.Current, pid
}
