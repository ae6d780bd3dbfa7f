// Command starter starts processes as crank does, by pkg/proc, and says how long that took.
//
// It is `starter TRUE ACTOR`, and does something for each line of stdin. On "true" it starts TRUE, and prints the
// nanoseconds until its status was taken. On "app" it starts `ACTOR swapped`, prints when that one was executed, and ends
// it at the next line.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/proc"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "starter:", err)
		os.Exit(1)
	}
}

// now is CLOCK_MONOTONIC in nanoseconds, the same in every process.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}

func serve(args []string) error {
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		var err error
		switch orders.Text() {
		case "true":
			err = startTrue(args[0])
		case "app":
			err = startApp(args[1], orders)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func startTrue(path string) error {
	spec := proc.Spec{Path: path, Argv: []string{path}, Env: os.Environ(), Files: []int{0, 1, 2}, ListenPID: true}
	began := now()
	p, err := proc.Start(spec)
	if err != nil {
		return err
	}
	err = wait(p)
	took := now() - began
	p.Gone()
	fmt.Println(took)
	return err
}

func startApp(path string, orders *bufio.Scanner) error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(pair[0])
	p, err := proc.Start(proc.Spec{
		Path: path, Argv: []string{path, "swapped"}, Env: append(os.Environ(), "NOTIFY_FD=3"),
		Files: []int{0, 1, 2, pair[1]}, ListenPID: true,
	})
	syscall.Close(pair[1])
	if err != nil {
		return err
	}
	<-p.ExecOver()
	executed := now()
	if !p.Executed() {
		return fmt.Errorf("cannot execute %s", path)
	}
	fmt.Println(executed)
	orders.Scan()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err = wait(p)
	p.Gone()
	return err
}

func wait(p *proc.Process) error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.PID(), &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case status.ExitStatus() != 0:
			return fmt.Errorf("process %d ended with status %d", p.PID(), status)
		default:
			return nil
		}
	}
}
