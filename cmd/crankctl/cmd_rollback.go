package main

import "github.com/crankctl/crank/pkg/control"

var cmdRollback = &command{
	name:    "rollback",
	changes: true,
	summary: "swap to the last different command that was good",
	details: `Twice returns to where it was. It does not bring back the contents of a file that was replaced in
place. It waits unless -wait=false.`,
	examples: []string{"crankctl rollback"},
	setup:    swapAgain((*control.Client).Rollback),
}
