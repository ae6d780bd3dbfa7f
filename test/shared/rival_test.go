package shared

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/ports"
)

// rivalApp ignores the descriptors that crank passes, and binds the port itself. It is ready before that, or after it.
const rivalApp = `
import os, signal, socket, sys
kind, port, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ready = lambda: os.write(int(os.environ["NOTIFY_FD"]), b"READY=1")
if when == "before":
    ready()
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("127.0.0.1", port))
if kind == "tcp":
    s.listen(64)
if when == "after":
    ready()
if when == "forked" and os.fork() == 0:
    signal.pause()
if when == "forked":
    s.close()
    ready()
while True:
    signal.pause()
`

// idleApp has descriptor 3, and never accepts.
const idleApp = `
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.write(int(os.environ["NOTIFY_FD"]), b"READY=1")
while True:
    signal.pause()
`

// warning is crank's log line about a rival.
type warning struct {
	Level, Msg, Socket, Bound, Other, Cause string
	Generation, PID, Waiting                int
}

// rivalWarnings waits for n warnings.
func rivalWarnings(t *testing.T, i *instance.Instance, n int) (found []warning) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		found = nil
		for line := range strings.Lines(i.Log()) {
			var w warning
			if json.Unmarshal([]byte(line), &w) == nil && w.Level == "WARN" && w.Other != "" {
				found = append(found, w)
			}
		}
		if len(found) >= n {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d warnings of another socket, want %d:\n%s", len(found), n, i.Log())
		}
	}
}

func script(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "app.py")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRivalOfTheApp: with SO_REUSEPORT the app can bind the port itself, and clients that the kernel assigns to crank's socket are not
// answered. crank warns before the first of them, once for each generation.
func TestRivalOfTheApp(t *testing.T) {
	for _, test := range []struct{ kind, when string }{{"tcp", "after"}, {"tcp", "before"}, {"tcp", "forked"}, {"udp", "after"}} {
		t.Run(test.kind+" "+test.when, func(t *testing.T) {
			t.Parallel()
			port := ports.Unused()
			address := test.kind + "://127.0.0.1:" + port
			i := instance.Start(t, bin, []string{"-bind", "web=" + address + "?reuseport"}, "python3", script(t, rivalApp), test.kind, port, test.when)
			for generation := 1; generation <= 2; generation++ {
				w := rivalWarnings(t, i, generation)[generation-1]
				if w.Msg != "app bound the shared port itself" || w.Generation != generation || w.Socket != "web" || w.Other != "127.0.0.1:"+port ||
					w.PID == 0 || !strings.Contains(w.Cause, "use descriptor 4") {
					t.Errorf("got %+v", w)
				}
				if generation == 1 {
					i.Crankctl("reload")
				}
			}
			if all := rivalWarnings(t, i, 2); len(all) != 2 {
				t.Errorf("%d warnings, want one for each generation: %+v", len(all), all)
			}
			i.Terminate()
			i.Wait()
		})
	}
}

// TestRivalOfAnother: another program listens on the port, which may be intended. crank warns once connections wait on its own socket
// and nobody accepts them.
func TestRivalOfAnother(t *testing.T) {
	for _, kind := range []string{"tcp", "udp"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			port := ports.Unused()
			i := instance.Start(t, bin, []string{"-bind", "web=" + kind + "://127.0.0.1:" + port + "?reuseport"}, "python3", script(t, idleApp))
			rival := bindRival(t, kind, port)
			defer rival.Close()
			for n := range 64 { // the kernel distributes them by a hash
				conn, err := net.Dial(kind, "127.0.0.1:"+port)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, "%d", n)
			}
			w := rivalWarnings(t, i, 1)[0]
			if w.Msg != "clients not accepted; another socket is listening" || w.Generation != 1 || w.Waiting == 0 || w.Other != "127.0.0.1:"+port || w.PID != os.Getpid() {
				t.Errorf("got %+v, want pid %d", w, os.Getpid())
			}
			i.Terminate()
			i.Wait()
		})
	}
}

func bindRival(t *testing.T, kind, port string) io.Closer {
	t.Helper()
	socketKind := unix.SOCK_STREAM
	if kind == "udp" {
		socketKind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, socketKind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "rival")
	var number int
	fmt.Sscan(port, &number)
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: number})
	}
	if err == nil && kind == "tcp" {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}
