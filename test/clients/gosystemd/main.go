// Command gosystemd is an app that takes its sockets and talks as go-systemd has it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/crankctl/crank/pkg/child"
)

func main() {
	via := flag.String("via", "listeners", "`how` to take the sockets: listeners, names, files, packets")
	quiet := flag.Bool("quiet", false, "leave it to others to say READY")
	flag.Parse()
	if err := run(*via, *quiet); err != nil {
		fmt.Fprintln(os.Stderr, "gosystemd:", err)
		os.Exit(1)
	}
}

func run(via string, quiet bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGUSR2)
	if period, err := daemon.SdWatchdogEnabled(false); err != nil {
		return err
	} else if period > 0 {
		fmt.Println("watchdog", period)
	}
	serve, err := server(via)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx) }()
	if !quiet {
		err = tell("EXTEND_TIMEOUT_USEC=10000000", "STATUS=serving "+via+"\n"+daemon.SdNotifyReady)
	}
	if err != nil {
		return err
	}
	for {
		select {
		case <-reload:
			if err := tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic()), "STATUS=reloaded\n"+daemon.SdNotifyReady); err != nil {
				return err
			}
		case <-ctx.Done():
			if !quiet {
				err = tell(daemon.SdNotifyStopping)
			}
			return errors.Join(err, <-ended)
		}
	}
}

// tell sends each state as a message; one that is not heard is an error here.
func tell(states ...string) error {
	for _, state := range states {
		if sent, err := daemon.SdNotify(false, state); err != nil || !sent {
			return fmt.Errorf("cannot say %q: sent is %v: %w", state, sent, err)
		}
	}
	return nil
}

// monotonic is CLOCK_MONOTONIC in microseconds, as RELOADING=1 needs it: the kernel counts /proc/uptime
// by CLOCK_BOOTTIME, which is the same as long as the machine has not slept.
func monotonic() int64 {
	var seconds float64
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 1
	}
	if _, err := fmt.Sscan(string(text), &seconds); err != nil {
		return 1
	}
	return int64(seconds * 1e6)
}

// server takes the sockets.
func server(via string) (serve func(context.Context) error, err error) {
	var listeners []net.Listener
	switch via {
	case "listeners":
		listeners, err = activation.Listeners()
	case "names":
		var named map[string][]net.Listener
		named, err = activation.ListenersWithNames()
		listeners = append(named["web"], named["admin"]...)
		if err == nil && len(listeners) != 2 {
			return nil, fmt.Errorf("the sockets web and admin are missing in %v", named)
		}
	case "files":
		for _, file := range activation.Files(true) {
			listener, err := net.FileListener(file)
			if err != nil {
				return nil, err
			}
			listeners = append(listeners, listener)
		}
	case "packets":
		conns, err := activation.PacketConns()
		if err != nil || len(conns) != 1 {
			return nil, fmt.Errorf("got %d datagram sockets: %w", len(conns), err)
		}
		return func(ctx context.Context) error { return echo(ctx, conns[0]) }, nil
	default:
		return nil, fmt.Errorf("unknown -via %s", via)
	}
	if err != nil {
		return nil, err
	}
	if len(listeners) == 0 {
		return nil, errors.New("there is no listener")
	}
	srv := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: time.Minute}
	return func(ctx context.Context) error { return child.Server{Quiet: true}.Serve(ctx, srv, listeners...) }, nil
}

var body = "generation " + os.Getenv("CRANK_GENERATION") + "\n"

func answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hold" { // until the client sends a byte
		c := http.NewResponseController(w)
		if err := errors.Join(c.EnableFullDuplex(), c.Flush()); err != nil {
			panic(err)
		}
		_, _ = io.ReadFull(r.Body, make([]byte, 1))
	}
	_, _ = io.WriteString(w, body)
}

// echo answers datagrams until ctx ends; what waits in the socket then is for the next generation.
func echo(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		_, from, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo([]byte(body), from); err != nil {
			return err
		}
	}
}
