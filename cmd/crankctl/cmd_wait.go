package main

import (
	"flag"

	"github.com/crankctl/crank/pkg/control"
)

var cmdWait = &command{
	name:    "wait",
	summary: "wait until crank is ready, idle, or at a generation",
	details: `-ready is what it does without a flag. It fails at once where what it waits for can no longer happen.
Limit it by -timeout, which exits 124.`,
	examples: []string{"crankctl wait -timeout 30", "crankctl wait -generation 5", "crankctl wait -idle"},
	setup: func(fs *flag.FlagSet) action {
		var generation *int
		ready := fs.Bool("ready", false, "until it is ready")
		idle := fs.Bool("idle", false, "until nothing is starting or leaving")
		numberVar(fs, &generation, 1, "generation", "until generation `N` is current")
		return func(s *session, args []string) error {
			what, n := "ready", 0
			switch {
			case *ready && *idle, (*ready || *idle) && generation != nil:
				return usagef("-ready, -idle and -generation exclude each other")
			case *idle:
				what = "idle"
			case generation != nil:
				what, n = "generation", *generation
			}
			p := s.watch()
			result, err := s.client.Wait(s.ctx, what, n, p.event)
			p.stop()
			return s.waited(what, result, err)
		}
	},
}

func (s *session) waited(what string, result *control.Result, err error) error {
	if result == nil {
		return err
	}
	if done, jsonErr := s.json(result); done || err != nil {
		return firstError(err, jsonErr)
	}
	state := "ready"
	if what == "idle" {
		state = what
	}
	s.say("%s %s after %s, generation %d (pid %d)", s.client.Name(), state, compact(result.Seconds), result.Current, result.CurrentPID)
	return nil
}
