package main

import "flag"

var cmdAbort = &command{
	name:     "abort",
	changes:  true,
	summary:  "stop the generation that is starting; the current one stays",
	examples: []string{"crankctl abort"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			result, err := s.client.Abort(s.ctx)
			if err != nil {
				return err
			}
			if done, err := s.json(result); done {
				return err
			}
			s.say("aborted %s %d (pid %d)", s.client.Name(), result.Generation, result.PID)
			return nil
		}
	},
}
