package main

import (
	"flag"
	"fmt"
	"time"
)

// readyTimeout is for a probe that does not say -timeout.
const readyTimeout = time.Second

var cmdReady = &command{
	name:     "ready",
	summary:  "exit 0 if ready, 1 if not: for probes",
	details:  "It gives up after a second unless -timeout says otherwise, and exits 1 also when crank is not reached.",
	examples: []string{"crankctl ready", "HEALTHCHECK CMD [\"crankctl\", \"ready\"]"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			ready, err := s.client.Ready(s.ctx)
			if err != nil {
				return err
			}
			done, err := s.json(ready)
			switch {
			case err != nil:
				return err
			case !ready.Ready:
				return fmt.Errorf("not ready: %s", ready.Reason)
			case !done:
				s.say("ready")
			}
			return nil
		}
	},
}
