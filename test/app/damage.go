package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// damage is what an app may do to a socket that it shares with all other generations.
type damage struct {
	what, when string
	done       string
	fd         int
}

// The moments of -damage-at.
const (
	atStart = "start"
	atReady = "ready"
	atEnd   = "end"
)

func (d *damage) flags(fs *flag.FlagSet) {
	var names []string
	for name := range damages {
		names = append(names, name)
	}
	slices.Sort(names)
	fs.StringVar(&d.what, "damage", "", "`what` to do to a shared socket, for example listen@3: "+strings.Join(names, ", "))
	fs.StringVar(&d.done, "damage-done", "", "create this `file` when it is done")
	fs.StringVar(&d.when, "damage-at", atStart, "`when`: "+atStart+", "+atReady+" (after READY), "+atEnd+" (when drained), order (by -order damage)")
}

// hold duplicates the descriptor: the server closes its own.
func (d *damage) hold() error {
	if d.what == "" {
		return nil
	}
	_, number, _ := strings.Cut(d.what, "@")
	fd, err := strconv.Atoi(number)
	if err == nil {
		d.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
	}
	if err != nil {
		return fmt.Errorf("-damage %s: %w", d.what, err)
	}
	return nil
}

// do carries out the damage if this is the moment for it.
func (d *damage) do(when string) error {
	if d.what == "" || d.when != when {
		return nil
	}
	name, _, _ := strings.Cut(d.what, "@")
	act, ok := damages[name]
	if !ok {
		return fmt.Errorf("-damage %s: unknown damage", d.what)
	}
	err := act(d.fd)
	if err == nil && d.done != "" {
		err = os.WriteFile(d.done, nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("-damage %s: %w", d.what, err)
	}
	return nil
}

var damages = map[string]func(fd int) error{
	"listen":  func(fd int) error { return unix.Listen(fd, 1) },
	"unlink":  func(fd int) error { return withPath(fd, os.Remove) },
	"replace": func(fd int) error { return withPath(fd, replace) },
	"chmod":   func(fd int) error { return withPath(fd, func(path string) error { return os.Chmod(path, 0) }) },
	"connect": connect,
	"shutdown": func(fd int) error {
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); !errors.Is(err, unix.ENOTCONN) { // it shuts the socket down all the same
			return err
		}
		return nil
	},
	"flags": func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags^unix.O_NONBLOCK|unix.O_ASYNC)
		}
		return err
	},
	"timeout": func(fd int) error {
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 1000})
	},
	"buffer":     func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) },
	"minttl":     func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, 255) },
	"filter":     attach,
	"chmod-loop": func(fd int) error { return withPath(fd, chmodForGood) },
	"lock-filter": func(fd int) error {
		return errors.Join(attach(fd), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
	},
}

func withPath(fd int, act func(path string) error) error {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	at, ok := name.(*unix.SockaddrUnix)
	if !ok {
		return errors.New("the socket has no path")
	}
	return act(at.Name)
}

// chmodForGood damages the path in the background until the process is killed.
func chmodForGood(path string) error {
	go func() {
		for {
			_ = os.Chmod(path, 0)
			_ = os.Remove(path)
		}
	}()
	return nil
}

func replace(path string) error {
	return errors.Join(os.Remove(path), os.WriteFile(path, []byte("not a socket\n"), 0o600))
}

// attach attaches a filter that lets nothing pass.
func attach(fd int) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}})
}

// connect connects a datagram socket to a new socket of this process.
func connect(fd int) error {
	var own unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if domain == unix.AF_UNIX {
		own = &unix.SockaddrUnix{} // any abstract name
	}
	peer, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err = unix.Bind(peer, own); err == nil {
		own, err = unix.Getsockname(peer)
	}
	if err == nil {
		err = unix.Connect(fd, own)
	}
	return err // peer stays open: it is the peer until this process ends
}
