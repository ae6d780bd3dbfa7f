//go:build unix

// Package child is for apps in Go that run under crank: the sockets, the notifications, and servers
// that end without losing a request.
//
// It imports the standard library alone and follows systemd's conventions (sd_listen_fds(3),
// sd_notify(3)), so it does the same under systemd. Where there is neither, it does the ordinary
// thing: sockets are bound, and notifications go nowhere.
//
// # The life of a server
//
// [Serve], for HTTP, and [ServeTCP], for any other protocol, do all of it:
//
//	start     Call it when the app can serve: all generations share the sockets, so it gets clients
//	          from now on. The sockets that were passed are taken over; without any, one is bound.
//	          What cannot be served is said (X_CRANK_FAILED), and crank ends the swap at once.
//	READY=1   is said when every socket accepts. Under crank the old generation is told to end now.
//	serve     until ctx ends, which is when SIGTERM comes (signal.NotifyContext).
//	drain     No more is accepted: what waits in the queue is for the next generation, since
//	          the socket is the same. STOPPING=1 is said. Each connection ends in the way of its
//	          protocol, when its client knows that it will:
//	          HTTP/1.1: the next answer says "Connection: close". An idle connection is waited
//	          for, since its client may be sending just now.
//	          HTTP/2: GOAWAY in two steps (RFC 9113, 6.8). The first ends no stream. When the client
//	          has read it, has no stream open, and does not hang up itself, it gets the second.
//	          Long-lived ones (TCP, WebSocket, server-sent events): they are told, at random
//	          points of [Server].Spread, so that the clients do not all come back at once. See
//	          [Leaving].
//	end       when no connection is left. After [Server].Timeout those that are left are closed, and the
//	          error says what was cut short.
//
// [http.Server.Shutdown] does less: it closes idle connections at once, drops an HTTP/1.1 request
// that is being read, drops the HTTP/2 streams that the client began before it read the GOAWAY, and
// does not know hijacked connections.
//
// # Doing it by hand
//
// An app whose server is not written with net/http takes its sockets from [Listen], [ListenNamed],
// [Listeners] or [PacketConns], and says [Ready] when it serves, and [Stopping] when it begins to
// end without having been told to.
package child

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// firstFD is the number of the first descriptor that is passed: SD_LISTEN_FDS_START.
const firstFD = 3

// Listeners returns the stream sockets that this process was given, in their order; none is not an
// error. Every call returns the same ones.
//
// The sockets are shared with crank and with the other generations: Close gives up this process's
// copy alone and leaves a unix socket's path where it is, and net makes them non-blocking for
// everyone. They are not passed on to processes that the app starts.
func Listeners() ([]net.Listener, error) {
	s, err := inherited()
	return slices.Clone(s.listeners), err
}

// PacketConns is Listeners for datagram sockets.
func PacketConns() ([]net.PacketConn, error) {
	s, err := inherited()
	return slices.Clone(s.packets), err
}

// Listen returns the first of [Listeners], and binds as [net.Listen] does where there is none.
func Listen(network, address string) (net.Listener, error) {
	return listen(network, address, func(s given) (net.Listener, error) { return s.listeners[0], nil })
}

// ListenNamed returns the stream socket of that name (`-bind name=...`), and binds as [net.Listen]
// does where the process was given no stream socket at all. Where it was given others, the error
// matches [os.ErrNotExist].
func ListenNamed(name, network, address string) (net.Listener, error) {
	return listen(network, address, func(s given) (net.Listener, error) {
		if ln, ok := s.named[name]; ok {
			return ln, nil
		}
		return nil, fmt.Errorf("cannot find a listener named %q: %w: give one with crank -bind %s=ADDRESS", name, os.ErrNotExist, name)
	})
}

func listen(network, address string, choose func(given) (net.Listener, error)) (net.Listener, error) {
	s, err := inherited()
	if err != nil {
		return nil, err
	}
	if len(s.listeners) == 0 {
		return net.Listen(network, address)
	}
	return choose(s)
}

// given is what this process was started with.
type given struct {
	listeners []net.Listener
	packets   []net.PacketConn
	named     map[string]net.Listener
}

// inherited takes the descriptors over once: afterwards their numbers may mean something else.
var inherited = sync.OnceValues(func() (given, error) {
	return adopt(os.Getenv, os.Getpid(), firstFD)
})

// adopt takes over what the environment says that pid was given, from the descriptor first on.
// LISTEN_PID may be missing, but one that names another process means that the descriptors are not
// for this one.
func adopt(getenv func(string) string, pid, first int) (given, error) {
	count, err := listenCount(getenv, pid)
	if err != nil {
		return given{}, err
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	s := given{named: map[string]net.Listener{}}
	var errs []error
	for i := range count {
		name := "LISTEN_FD_" + strconv.Itoa(first+i)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		errs = append(errs, s.adopt(first+i, name))
	}
	return s, errors.Join(errs...)
}

func listenCount(getenv func(string) string, pid int) (int, error) {
	if text := getenv("LISTEN_PID"); text != "" {
		wanted, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("cannot take the sockets over: LISTEN_PID=%q is not a number", text)
		}
		if wanted != pid {
			return 0, nil
		}
	}
	text := getenv("LISTEN_FDS")
	if text == "" {
		return 0, nil
	}
	count, err := strconv.Atoi(text)
	if err != nil || count < 0 {
		return 0, fmt.Errorf("cannot take the sockets over: LISTEN_FDS=%q is not a number", text)
	}
	return count, nil
}

// adopt makes a Go socket of fd and closes fd itself, so that Close leaves no copy behind.
func (s *given) adopt(fd int, name string) error {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return fmt.Errorf("cannot take socket %d (%s) over: %w: does a wrapper close descriptors?", fd, name, err)
	}
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if kind == syscall.SOCK_DGRAM {
		conn, err := net.FilePacketConn(file)
		if err != nil {
			return fmt.Errorf("cannot take socket %d (%s) over: %w", fd, name, err)
		}
		s.packets = append(s.packets, conn)
		return nil
	}
	ln, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("cannot take socket %d (%s) over: %w", fd, name, err)
	}
	if unix, ok := ln.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false)
	}
	s.listeners = append(s.listeners, ln)
	if _, taken := s.named[name]; !taken {
		s.named[name] = ln
	}
	return nil
}
