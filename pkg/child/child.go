//go:build unix

// Package child is for apps in Go that run under crank: the sockets, the notifications, and an
// HTTP server that drains without losing a request.
//
// It imports the standard library alone, follows systemd's conventions (sd_listen_fds(3),
// sd_notify(3)), and does the ordinary thing where there is neither crank nor systemd: [Listen]
// binds, [Ready] does nothing. A whole app is in the example of [Serve].
package child

import (
	"errors"
	"fmt"
	"net"
	"os"
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
	return s.listeners, err
}

// PacketConns is Listeners for datagram sockets.
func PacketConns() ([]net.PacketConn, error) {
	s, err := inherited()
	return s.packets, err
}

// Listener returns the stream socket of that name (`-bind name=...`). The error matches
// [os.ErrNotExist] where there is none.
func Listener(name string) (net.Listener, error) {
	s, err := inherited()
	if err != nil {
		return nil, err
	}
	if ln, ok := s.named[name]; ok {
		return ln, nil
	}
	return nil, fmt.Errorf("cannot find a listener named %q: %w: give one with crank -bind %s=ADDRESS", name, os.ErrNotExist, name)
}

// Listen returns the first of [Listeners], and binds as [net.Listen] does where there is none.
func Listen(network, address string) (net.Listener, error) {
	listeners, err := Listeners()
	if err != nil {
		return nil, err
	}
	if len(listeners) > 0 {
		return listeners[0], nil
	}
	return net.Listen(network, address)
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
