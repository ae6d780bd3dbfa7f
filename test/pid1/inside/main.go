// Command inside is what the tests of test/pid1 run inside a container of theirs: the process that
// prepares it, and the apps.
//
// It is a program of its own, static and without the race detector, because it is started thousands
// of times and must run where there are no libraries.
package main

import (
	"fmt"
	"os"
)

// roles by the first argument. Each gets the others and returns the exit code.
var roles = map[string]func(args []string) (int, error){
	"setup":   setup,   // prepares the process, and becomes the init under test
	"outer":   outer,   // is PID 1, and has the init under test as its child
	"blocked": blocked, // executes a command with every signal blocked
	"count":   count,   // counts the signals that it gets
	"leave":   leave,   // leaves processes behind and exits
	"stay":    stay,    // is left behind
	"orphans": orphans, // makes orphans as fast as it can
}

func main() {
	role := roles[os.Args[1]]
	if role == nil {
		fmt.Fprintf(os.Stderr, "inside: there is no role %q\n", os.Args[1])
		os.Exit(99)
	}
	code, err := role(os.Args[2:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "inside %s: %v\n", os.Args[1], err)
		os.Exit(99)
	}
	os.Exit(code)
}
