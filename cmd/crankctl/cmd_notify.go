package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// barrierTimeout is for a notify that does not say -timeout.
const barrierTimeout = 5 * time.Second

var cmdNotify = &command{
	name:    "notify",
	local:   true,
	args:    "K=V ...",
	summary: "tell crank something from within the app, through NOTIFY_SOCKET",
	details: `All words go in one message. It then waits until crank has read it, at most 5 seconds unless -timeout
says otherwise, so that the message is not lost if the caller exits at once.`,
	examples: []string{"crankctl notify READY=1", "crankctl notify READY=1 STATUS='200 routes loaded'"},
	setup: func(fs *flag.FlagSet) action {
		noBlock := fs.Bool("no-block", false, "do not wait until crank has read it")
		return func(s *session, args []string) error {
			message, err := notifyMessage(args)
			if err != nil {
				return err
			}
			path := s.env.get("NOTIFY_SOCKET")
			if path == "" {
				return &exitError{exitUnreachable, "NOTIFY_SOCKET is not set: call this from the app that crank has started"}
			}
			if err := notify(s.ctx, path, message, !*noBlock); err != nil {
				return fmt.Errorf("cannot notify %s: %w", path, err)
			}
			return nil
		}
	},
}

func notifyMessage(args []string) (string, error) {
	if len(args) == 0 {
		return "", usagef("notify needs K=V, such as READY=1")
	}
	for _, arg := range args {
		if key, _, ok := strings.Cut(arg, "="); !ok || key == "" || strings.ContainsAny(arg, "\r\n") {
			return "", usagef("%q is not K=V on one line", arg)
		}
	}
	return strings.Join(args, "\n"), nil
}

// notify sends one datagram and, with barrier, waits until crank has taken it.
func notify(ctx context.Context, path, message string, barrier bool) error {
	if !filepath.IsAbs(path) && !strings.HasPrefix(path, "@") {
		return errors.New("it is neither a path nor an abstract address")
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(barrierTimeout)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return timedOut(err)
	}
	if !barrier {
		return nil
	}
	return timedOut(sendBarrier(conn, deadline))
}

// sendBarrier sends BARRIER=1 with the write end of a pipe, which the receiver closes when it comes
// to that message: by then it has handled all earlier ones (sd_notify_barrier(3)).
func sendBarrier(conn *net.UnixConn, deadline time.Time) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := errors.Join(sendFile(conn, "BARRIER=1", w), w.Close()); err != nil {
		return err
	}
	if err := r.SetReadDeadline(deadline); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		return err
	}
	return nil
}

// sendFile sends a datagram with a descriptor: net.UnixConn.WriteMsgUnix refuses connected ones.
func sendFile(conn *net.UnixConn, message string, file *os.File) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	rights := syscall.UnixRights(int(file.Fd()))
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = syscall.Sendmsg(int(fd), []byte(message), rights, nil, 0)
		return sendErr != syscall.EAGAIN && sendErr != syscall.EINTR
	})
	if err == nil && sendErr != nil {
		err = os.NewSyscallError("sendmsg", sendErr)
	}
	return err
}

// timedOut makes a deadline of a socket that of -timeout.
func timedOut(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: nobody reads it", context.DeadlineExceeded)
	}
	return err
}
