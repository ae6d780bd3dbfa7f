package apps

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/instance"
)

// filling makes an answer more than the kernel takes for a narrow client. It is less than 64 KiB: an event loop keeps
// that much and calls it written, and a literal of Java must not be longer.
var filling = strings.Repeat("x", 60_000)

const (
	buffer      = 4096                // bytes: what the kernel shall buffer on each side
	smallSndbuf = "with-small-sndbuf" // the first argument of this program where it is to start an app so
)

// withSmallSndbuf returns the command with this program before it, which limits what the kernel buffers of an answer.
func withSmallSndbuf(command []string) []string {
	return slices.Concat([]string{os.Args[0], smallSndbuf}, command)
}

// execWithSmallSndbuf becomes the command, with a listening socket that hands a small SO_SNDBUF to what is accepted. It
// is descriptor 3, or 0 of an app in Java.
func execWithSmallSndbuf(command []string) error {
	err := syscall.SetsockoptInt(3, syscall.SOL_SOCKET, syscall.SO_SNDBUF, buffer)
	if err != nil {
		err = syscall.SetsockoptInt(0, syscall.SOL_SOCKET, syscall.SO_SNDBUF, buffer)
	}
	if err != nil {
		return err
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, command, os.Environ())
}

// large returns the source of an app whose answers, and the events of its streams, are that long.
func large(t *testing.T, source string) string {
	t.Helper()
	for _, text := range []string{"hello from", "data: tick"} {
		if !strings.Contains(source, text) {
			t.Fatalf("the app does not say %q", text)
		}
		source = strings.ReplaceAll(source, text, text+filling)
	}
	return source
}

// unread shows that an app delivers its last answer, and the rest of a stream, to clients that have not read them when
// it has nothing else left to do, and that it serves others until then.
func (p program) unread(t *testing.T, command []string) {
	i := instance.Start(t, bin, slices.Concat(p.flags, []string{"-stop", "900s"}), command...)
	stream, answer := narrow(t, i.Address), narrow(t, i.Address)
	stream.begin(t, events)
	clients := connect(t, i.Address, kinds[:1])
	i.Terminate()
	draining(t, clients[1])
	answer.begin(t, get)
	if err := asks(slow)(clients[0]); err != nil { // longer than the second after which a stream has its next event
		t.Errorf("while two clients do not read: %v", err)
	}
	for _, c := range clients {
		if err := c.end(); err != nil {
			t.Error(err)
		}
	}
	select { // where an app does not wait it ends now; a time that is too short can only hide that
	case <-i.Ended():
		t.Error("the app ends before its clients have read (if they get everything: the kernel takes it all)")
	case <-time.After(300 * time.Millisecond):
	}
	if err := then((*client).answer, (*client).farewell)(answer); err != nil {
		t.Errorf("the answer: %v", err)
	}
	if err := stream.events(); err != nil {
		t.Errorf("the stream: %v", err)
	}
	i.Wait()
}

// narrow makes a connection to an app with a small sndbuf, of which the kernel buffers little on this side as well.
func narrow(t *testing.T, address string) *client {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, Control: func(_, _ string, conn syscall.RawConn) (err error) {
		conn.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, buffer) })
		return err
	}}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(conn, patience)
}

// begin sends a request and waits until more of its answer than the header has come.
func (c *client) begin(t *testing.T, request string) {
	t.Helper()
	if err := sends(request)(c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.Peek(1024); err != nil {
		t.Fatal(err)
	}
}

// events reads a stream, which must be one of whole events, to its end.
func (c *client) events() error {
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", len(body), err)
	}
	event := "data: tick" + filling + "\n\n"
	if rest := strings.ReplaceAll(string(body), event, ""); len(body) == 0 || rest != "" {
		return fmt.Errorf("%d bytes, of which the last %d are no whole event", len(body), len(rest))
	}
	return c.end()
}
