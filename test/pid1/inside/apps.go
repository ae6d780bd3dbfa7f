package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// blocked is `inside blocked COMMAND ...`: whatever signal the command is sent stays pending, where
// /proc/PID/status shows it: no handler of a language's runtime can lose or keep one.
func blocked(args []string) (int, error) {
	runtime.LockOSThread()
	var all []syscall.Signal
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		all = append(all, sig)
	}
	if err := block(all...); err != nil {
		return 0, err
	}
	return 0, syscall.Exec(args[0], args, os.Environ())
}

// count is `inside count [-once]`: it prints each signal, and exits with 0 after TERM.
func count([]string) (int, error) {
	got := make(chan os.Signal, 20_000) // more than a test sends: none may be lost here
	signal.Notify(got)
	signal.Reset(syscall.SIGURG)
	fmt.Println("ready", os.Getpid())
	for sig := range got {
		fmt.Println("signal", int(sig.(syscall.Signal)))
		if sig == syscall.SIGTERM {
			break
		}
	}
	return 0, nil
}

// leave is `inside leave CODE HOW [stay arguments]`: it starts `inside stay`, waits until that one
// is ready, and exits.
func leave(args []string) (int, error) {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, err
	}
	how, rest := args[1], args[2:]
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	argv := append([]string{"inside", "stay"}, rest...)
	attr := &syscall.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{}}
	switch how {
	case "nothing":
		return code, nil
	case "group":
	case "setsid":
		attr.Sys.Setsid = true
	case "twice": // as a daemon does: its parent is gone, and it leads no session
		argv = append([]string{"inside", "leave", "0", "group"}, rest...)
		attr.Sys.Setsid = true
	default:
		return 0, fmt.Errorf("there is no way %q", how)
	}
	var ready [2]int
	if err := syscall.Pipe2(ready[:], syscall.O_CLOEXEC); err != nil {
		return 0, err
	}
	attr.Files = []uintptr{0, 1, 2, uintptr(ready[1])}
	pid, err := syscall.ForkExec(self, argv, attr)
	if err != nil {
		return 0, err
	}
	syscall.Close(ready[1])
	if how == "twice" {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		return code, err
	}
	_, err = bufio.NewReader(os.NewFile(uintptr(ready[0]), "ready")).ReadString('\n')
	return code, err
}

// stay is `inside stay [-ignore] [-forever]`: it says so on stdout and on descriptor 3, and again when TERM comes.
func stay(args []string) (int, error) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1)
	fmt.Println("left behind", os.Getpid())
	ready := os.NewFile(3, "ready")
	fmt.Fprintln(ready, "ready")
	ready.Close()
	for {
		select {
		case sig := <-term:
			fmt.Println("left behind got", int(sig.(syscall.Signal)))
			if len(args) == 0 {
				fmt.Println("left behind is done")
				return 0, nil
			}
		case <-time.After(time.Minute): // no test leaves any for good
			return 1, nil
		}
	}
}
