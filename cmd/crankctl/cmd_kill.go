package main

import (
	"errors"
	"flag"
	"syscall"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/signame"
)

var cmdKill = &command{
	name:    "kill",
	changes: true,
	summary: "send a signal to generations",
	details: `It needs a selector: -starting, -ready and -stopping add to each other; -pid narrows them. Killing the
current generation is the same to crank as its own death: with -restart never, crank ends with it.`,
	examples: []string{"crankctl kill -signal INT -pid 123", "crankctl kill -stopping -signal KILL -wait"},
	setup: func(fs *flag.FlagSet) action {
		selected := declareSelectors(fs)
		r := control.KillRequest{Signal: signame.Name(syscall.SIGTERM)}
		fs.Func("signal", "the `signal`: INT, SIGINT or 2 (default TERM)", func(text string) error {
			sig, err := signame.Parse(text)
			r.Signal = signame.Name(sig)
			return err
		})
		fs.BoolVar(&r.Wait, "wait", false, "wait until those that got it are gone")
		return func(s *session, args []string) error {
			r.States, r.PID = selected.states(), selected.pid
			if len(r.States) == 0 && r.PID == nil {
				return usagef("kill needs a selector: -starting, -ready, -stopping or -pid")
			}
			return s.kill(r)
		}
	},
}

func (s *session) kill(r control.KillRequest) error {
	result, err := s.client.Kill(s.ctx, r)
	if err != nil {
		return err
	}
	done, err := s.json(result)
	if len(result.Generations) == 0 {
		return errors.New("no generation matches, nothing was sent: see crankctl ps")
	}
	if done {
		return err
	}
	for _, g := range result.Generations {
		what := "sent %s to %s %s"
		if r.Wait {
			what += ", it is gone"
		}
		s.say(what, result.Signal, s.client.Name(), nameOf(g))
	}
	return nil
}
