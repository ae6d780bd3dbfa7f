// Command actor plays the apps of test/bench: it is small, so that little of what is measured is its own.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// roles by the first argument.
var roles = map[string]func(args []string) error{
	"signalled": signalled, // says when each USR1 came
	"swapped":   swapped,   // is ready at once, and says when it was and when it was told to stop
	"lines":     lines,     // writes lines
}

func main() {
	role := roles[os.Args[1]]
	if role == nil {
		fmt.Fprintf(os.Stderr, "actor: there is no role %q\n", os.Args[1])
		os.Exit(99)
	}
	if err := role(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "actor %s: %v\n", os.Args[1], err)
		os.Exit(99)
	}
}

// now is CLOCK_MONOTONIC in nanoseconds, the same in every process.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}
