package main

import (
	"flag"
	"fmt"

	"github.com/crankctl/crank/pkg/control"
)

var cmdEvents = &command{
	name:     "events",
	summary:  "list the last 100 transitions",
	details:  "-o wide adds who asked for them.",
	examples: []string{"crankctl events", "crankctl events -f -o json"},
	setup: func(fs *flag.FlagSet) action {
		follow := fs.Bool("f", false, "then go on with those to come")
		return func(s *session, args []string) error {
			var printErr error
			err := s.client.Events(s.ctx, 0, *follow, func(e control.Event) {
				printErr = firstError(printErr, s.printEvent(e))
			})
			return firstError(err, printErr)
		}
	},
}

func (s *session) printEvent(e control.Event) error {
	if done, err := s.json(e); done {
		return err
	}
	line := e.Time.Format("2006-01-02T15:04:05.000Z07:00") + "  " + eventLine(s.client.Name(), e)
	if s.global.output == "wide" && e.Asker != nil && (e.Kind == "started" || e.Kind == "signal") {
		line += "  by " + clean(askerText(e.Asker))
	}
	if _, err := fmt.Fprintln(s.stdout, line); err != nil {
		return err
	}
	for _, text := range e.Stderr {
		if _, err := fmt.Fprintf(s.stdout, "  | %s\n", clean(text)); err != nil {
			return err
		}
	}
	return nil
}
