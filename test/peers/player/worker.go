package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/child"
)

// worker is a worker's behaviour in a story. The story and the worker communicate through files in its directory.
type worker struct {
	dir  string // see has
	exit int    // exit code after a stop signal
	fd   int    // the descriptor of the socket; -1: as SERVER_STARTER_PORT says
	stay bool   // print stop signals and go on
}

// work is `player worker [flags]`. It answers each connection with its pid, each datagram as well.
func work(args []string) (int, error) {
	var w worker
	fs := flag.NewFlagSet("worker", flag.ContinueOnError)
	fs.StringVar(&w.dir, "dir", "", "directory `for` files")
	fs.IntVar(&w.exit, "exit", 0, "exit `code` after a stop signal")
	fs.IntVar(&w.fd, "fd", -1, "`descriptor` of the socket")
	fs.BoolVar(&w.stay, "stay", false, "ignore stop signals")
	if err := fs.Parse(args); err != nil {
		return 0, err
	}
	stop := make(chan os.Signal, 100)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	if err := w.count("starts"); err != nil {
		return 0, err
	}
	if w.has("broken") {
		return 1, nil
	}
	if w.has("quit") {
		return 0, nil
	}
	printGiven()
	w.awaitWithout("wait")
	if err := errors.Join(w.serve(), w.count("serves")); err != nil {
		return 0, err
	}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		if err := child.Notify("READY=1"); err != nil {
			return 0, err
		}
	}
	fmt.Println("ready", os.Getpid())
	for sig := range stop {
		fmt.Println("signal", int(sig.(syscall.Signal)), "to", os.Getpid())
		if !w.stay || sig == syscall.SIGUSR2 {
			break
		}
	}
	w.awaitWithout("hold")
	fmt.Println("end", os.Getpid())
	return w.exit, nil
}

// printGiven prints what the worker inherited.
func printGiven() {
	variable, ok := os.LookupEnv("SERVER_STARTER_PORT")
	if !ok {
		variable = "(not set)"
	}
	stdin, _ := os.Readlink("/proc/self/fd/0")
	fmt.Println("generation", os.Getenv("SERVER_STARTER_GENERATION"))
	fmt.Println("stdin", stdin)
	fmt.Println("PORT", variable)
}

// count appends one byte to a file shared by all workers of this directory.
func (w worker) count(file string) error {
	if w.dir == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(w.dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x")
	return errors.Join(err, f.Close())
}

// has reports whether a file is in the directory: "broken" makes a worker exit with 1 at its start, "quit" with 0, "wait" keeps it
// from serving, "hold" from ending.
func (w worker) has(file string) bool {
	if w.dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(w.dir, file))
	return err == nil
}

func (w worker) awaitWithout(file string) {
	for w.has(file) {
		time.Sleep(5 * time.Millisecond)
	}
}

// serve answers on every socket.
func (w worker) serve() error {
	fds := []int{w.fd}
	if w.fd < 0 {
		fds = nil
		for part := range strings.SplitSeq(os.Getenv("SERVER_STARTER_PORT"), ";") {
			if i := strings.LastIndex(part, "="); i >= 0 {
				fd, err := strconv.Atoi(part[i+1:])
				if err != nil {
					return err
				}
				fds = append(fds, fd)
			}
		}
	}
	for _, fd := range fds {
		if err := answer(fd); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// answer answers on one socket, in the background. It prints the length of a listening socket's queue, which is the field that
// tcp_info(7) has for selective acknowledgements.
func answer(fd int) error {
	file := os.NewFile(uintptr(fd), "socket")
	text := fmt.Appendf(nil, "%d", os.Getpid())
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return err
	} else if kind == unix.SOCK_DGRAM {
		conn, err := net.FilePacketConn(file)
		if err != nil {
			return err
		}
		go func() {
			for buf := make([]byte, 100); ; {
				if _, from, err := conn.ReadFrom(buf); err == nil {
					_, _ = conn.WriteTo(text, from)
				}
			}
		}()
		return nil
	}
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		fmt.Println("backlog", info.Sacked)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return err
	}
	go func() {
		for {
			if conn, err := listener.Accept(); err == nil {
				_, _ = conn.Write(text)
				conn.Close()
			}
		}
	}()
	return nil
}
