package main

import (
	"flag"
	"fmt"

	"github.com/crankctl/crank/pkg/version"
)

var cmdVersion = &command{
	name:     "version",
	local:    true,
	summary:  "show crankctl's own version; info shows crank's",
	examples: []string{"crankctl version"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			if done, err := s.json(version.Get()); done {
				return err
			}
			_, err := fmt.Fprintln(s.stdout, "crankctl", version.String())
			return err
		}
	},
}
