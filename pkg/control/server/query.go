package server

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/signame"
	"github.com/crankctl/crank/pkg/supervisor"
)

// selectors are the states as ps and kill name them.
var selectors = map[string][]supervisor.State{
	"starting": {supervisor.Starting, supervisor.Settling},
	"settling": {supervisor.Settling},
	"ready":    {supervisor.Ready},
	"stopping": {supervisor.Stopping},
}

func (s *Server) info(x *exchange) error {
	if err := x.onlyQuery(); err != nil {
		return err
	}
	status, info := s.Supervisor.Status(), s.Info()
	if g := find(status, status.Current); g != nil {
		current := s.generation(*g, time.Now())
		info.Current = &current
	}
	return x.answer(http.StatusOK, info)
}

func (s *Server) status(x *exchange) error {
	if err := x.onlyQuery(); err != nil {
		return err
	}
	return x.answer(http.StatusOK, s.wholeStatus(time.Now()))
}

func (s *Server) ready(x *exchange) error {
	status := s.Supervisor.Status()
	code := http.StatusOK
	if !status.Ready {
		code = http.StatusServiceUnavailable
	}
	return x.answer(code, control.Ready{Ready: status.Ready, Reason: status.Reason})
}

func (s *Server) ps(x *exchange) error {
	if err := x.onlyQuery("state", "pid"); err != nil {
		return err
	}
	pid, err := queryInt(x, "pid")
	if err != nil {
		return err
	}
	var names []string
	if list := x.URL.Query().Get("state"); list != "" {
		names = strings.Split(list, ",")
	}
	states, err := statesOf(names)
	if err != nil {
		return err
	}
	found := []control.Generation{}
	for _, g := range s.Supervisor.Status().Generations {
		if (len(states) == 0 || slices.Contains(states, g.State)) && (pid == 0 || g.PID == pid) {
			found = append(found, s.generation(g, time.Now()))
		}
	}
	return x.answer(http.StatusOK, found)
}

func statesOf(names []string) ([]supervisor.State, error) {
	var states []supervisor.State
	for _, name := range names {
		more, ok := selectors[name]
		if !ok {
			return nil, invalidf(http.StatusBadRequest, "state %q: it must be starting, settling, ready or stopping", name)
		}
		states = append(states, more...)
	}
	return states, nil
}

// kill sends a signal. With Wait it answers when all that got it are gone.
func (s *Server) kill(x *exchange) error {
	var r control.KillRequest
	if err := x.read(&r); err != nil {
		return err
	}
	k, err := s.killRequest(x, r)
	if err != nil {
		return err
	}
	hit, err := s.Supervisor.Kill(x.Context(), k)
	if err != nil {
		return err
	}
	result := control.KillResult{Signal: signame.Name(k.Signal), Generations: []control.Generation{}}
	for _, g := range hit {
		result.Generations = append(result.Generations, s.generation(g, time.Now()))
	}
	if r.Wait {
		if err := s.gone(x, hit); err != nil {
			return err
		}
	}
	return x.answer(http.StatusOK, result)
}

func (s *Server) killRequest(x *exchange, r control.KillRequest) (supervisor.KillRequest, error) {
	k := supervisor.KillRequest{Asker: x.asker}
	if len(r.States) == 0 && r.PID == nil {
		return k, invalidf(http.StatusBadRequest, "kill needs states or a pid")
	}
	if r.PID != nil {
		if k.PID = *r.PID; k.PID <= 0 {
			return k, invalidf(http.StatusBadRequest, "pid: %d is not the pid of a process", k.PID)
		}
	}
	var err error
	if k.States, err = statesOf(r.States); err != nil {
		return k, err
	}
	if k.Signal, err = signame.Parse(r.Signal); err != nil {
		return k, invalidf(http.StatusBadRequest, "signal: %v", err)
	}
	return k, nil
}

// gone waits until none of these generations is left, or the client or crank itself has gone.
func (s *Server) gone(x *exchange, hit []supervisor.GenerationStatus) error {
	tick := time.NewTicker(s.pollInterval)
	defer tick.Stop()
	seq := newest(s.Supervisor)
	for {
		events, more := s.Supervisor.Events(seq)
		if len(events) > 0 {
			seq = events[len(events)-1].Seq
			continue
		}
		status := s.Supervisor.Status()
		if !slices.ContainsFunc(hit, func(g supervisor.GenerationStatus) bool {
			now := find(status, g.Generation)
			return now != nil && now.State != supervisor.Exited
		}) {
			return nil
		}
		select {
		case <-more:
		case <-tick.C:
		case <-x.Context().Done():
			return x.Context().Err()
		case <-s.Supervisor.Done():
			return nil // nothing outlives crank
		}
	}
}
