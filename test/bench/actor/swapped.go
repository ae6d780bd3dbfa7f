package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// swapped is `actor swapped`: it says READY=1 on NOTIFY_FD at once, and ends when it is told to. To the datagram
// socket BENCH_REPORT it sends "ready PID NANOSECONDS" and "stop PID NANOSECONDS".
func swapped([]string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fd, err := strconv.Atoi(os.Getenv("NOTIFY_FD"))
	if err != nil {
		return err
	}
	ready := now()
	if _, err := syscall.Write(fd, []byte("READY=1")); err != nil {
		return err
	}
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	report := func(what string, when int64) error {
		text := fmt.Sprintf("%s %d %d", what, os.Getpid(), when)
		return syscall.Sendto(socket, []byte(text), 0, &syscall.SockaddrUnix{Name: os.Getenv("BENCH_REPORT")})
	}
	if err := report("ready", ready); err != nil {
		return err
	}
	<-stop
	return report("stop", now())
}
