package main

import (
	"context"
	"flag"

	"github.com/crankctl/crank/pkg/control"
)

var cmdReload = &command{
	name:     "reload",
	changes:  true,
	aliases:  []string{"swap", "restart"},
	summary:  "swap to a new generation of the same command",
	details:  "The same as run without a command, and as SIGHUP, except that it waits unless -wait=false.",
	examples: []string{"crankctl reload", "crankctl reload -wait=false", "crankx 'web-*' reload"},
	setup:    swapAgain((*control.Client).Reload),
}

// swapAgain is the setup of the verbs that swap to a command which crank knows.
func swapAgain(ask func(*control.Client, context.Context, control.SwapRequest, func(control.Event)) (*control.Result, error)) func(*flag.FlagSet) action {
	return func(fs *flag.FlagSet) action {
		var r control.SwapRequest
		declareSwap(fs, &r, true)
		return func(s *session, args []string) error {
			p := s.watch()
			result, err := ask(s.client, s.ctx, r, p.event)
			return s.swapped(p, r.Wait, result, err)
		}
	}
}
