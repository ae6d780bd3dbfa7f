//go:build unix

package child

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// notifyTimeout bounds the wait for a supervisor that does not read.
const notifyTimeout = 5 * time.Second

// Ready says that the app serves, or will as soon as it accepts: connections made meanwhile wait
// in the queue. Under crank the old generation is asked to drain after this. [Serve] and [ServeTCP]
// say it themselves.
func Ready() error { return Notify("READY=1") }

// Status says in one line what the app does, for `crankctl ps`.
func Status(text string) error { return Notify("STATUS=" + oneLine.Replace(text)) }

// Stopping says that the app has begun to end. After a signal of crank's it is not needed; systemd
// likes to hear it always.
func Stopping() error { return Notify("STOPPING=1") }

// Failed says that the app cannot become ready, and why: crank ends it and the swap at once.
func Failed(reason string) error { return Notify("X_CRANK_FAILED=" + oneLine.Replace(reason)) }

// ExtendTimeout asks for at least d from now to become ready in, or to end in: repeat it while there
// is progress. crank gives as much as -max-extend allows.
func ExtendTimeout(d time.Duration) error {
	return Notify("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ")

// Notify sends state, lines of KEY=VALUE, in one message: to the socket that NOTIFY_SOCKET names,
// else to the descriptor NOTIFY_FD. Where nobody listens (neither is set) it returns nil. It blocks
// for 5 s at most.
func Notify(state string) error {
	err := errNobody
	if address := os.Getenv("NOTIFY_SOCKET"); address != "" {
		err = notifySocket(address, state)
	}
	if err == nil {
		return nil
	}
	// A process that has changed its root still reaches the descriptor.
	if text := os.Getenv("NOTIFY_FD"); text != "" {
		err = notifyFD(text, state)
	}
	if err == nil || err == errNobody {
		return nil
	}
	return fmt.Errorf("cannot notify the supervisor: %w", err)
}

var errNobody = fmt.Errorf("nobody listens")

// notifySocket also takes the address of an abstract socket: net reads a leading @ as systemd does.
func notifySocket(address, state string) error {
	conn, err := net.DialTimeout("unixgram", address, notifyTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(notifyTimeout))
	_, err = conn.Write([]byte(state))
	return err
}

// notifyFD writes only to a datagram socket: the variable may have been inherited without the
// descriptor, whose number then belongs to something else.
func notifyFD(text, state string) error {
	fd, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("NOTIFY_FD=%q is not a number", text)
	}
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil || kind != syscall.SOCK_DGRAM {
		return fmt.Errorf("NOTIFY_FD=%d is not a datagram socket", fd)
	}
	syscall.CloseOnExec(fd)
	for deadline := time.Now().Add(notifyTimeout); ; {
		// The descriptor is blocking, and stays so: its flags belong to all who have it.
		err = syscall.Sendto(fd, []byte(state), syscall.MSG_DONTWAIT, nil)
		full := err == syscall.EAGAIN || err == syscall.ENOBUFS
		if err != syscall.EINTR && !full || time.Now().After(deadline) {
			return os.NewSyscallError("sendto", err)
		}
		if full {
			time.Sleep(notifyPause)
		}
	}
}

// notifyPause is between two tries to send to a supervisor that has not read yet: the standard library cannot wait for room in a
// descriptor without making it non-blocking for all who have it.
const notifyPause = 5 * time.Millisecond
