// Command player is the app in the stories of test/peers: a process that prints the signals it gets, or a worker that serves sockets as
// Server::Starter passes them. It prints lines on stdout, "ready" first.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// roles by the first argument. Each gets the other arguments and returns the exit code.
var roles = map[string]func(args []string) (int, error){
	"signals": printSignals,
	"worker":  work,
}

func main() {
	if len(os.Args) < 2 || roles[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "player: no role %q\n", os.Args[1:])
		os.Exit(99)
	}
	code, err := roles[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "player %s: %v\n", os.Args[1], err)
		os.Exit(99)
	}
	os.Exit(code)
}

// printSignals is `player signals [LAST]`: it prints the number of each signal, and exits with 0 after signal LAST.
func printSignals(args []string) (int, error) {
	last := 0
	if len(args) > 0 {
		var err error
		if last, err = strconv.Atoi(args[0]); err != nil {
			return 0, err
		}
	}
	got := make(chan os.Signal, 1000)
	signal.Notify(got)
	signal.Reset(syscall.SIGURG, syscall.SIGCHLD) // the Go runtime's own
	fmt.Println("ready")
	for sig := range got {
		number := int(sig.(syscall.Signal))
		fmt.Println("signal", number)
		if number == last {
			break
		}
	}
	return 0, nil
}
