package attack_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/programs"
)

const patience = time.Minute

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) {
	if received := os.Getenv(receivedVariable); received != "" {
		fmt.Fprintln(os.Stderr, impersonate(received))
		os.Exit(1)
	}
	os.Exit(programs.Main(m, &bin))
}

// instance is one crank with an app that answers.
type instance struct {
	t         *testing.T
	pid       int
	ctl       string
	client    *control.Client
	app, http string // addresses
}

func start(t *testing.T) *instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "attack-") // shorter than t.TempDir, for sun_path
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{t: t, ctl: filepath.Join(dir, "web.ctl")}
	cmd := exec.Command(filepath.Join(bin, "crank"), "-name", "web", "-prefix", dir, "-bind", "127.0.0.1:0", "-http", "127.0.0.1:0", "--", filepath.Join(bin, "app"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	i.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("crank: %v", err)
		}
		os.RemoveAll(dir)
	})
	if i.client, err = control.NewClient(i.ctl, ""); err != nil {
		t.Fatal(err)
	}
	var info control.Info
	i.eventually("crank is ready", func() (err error) {
		info, err = i.client.Info(t.Context())
		if err == nil && info.Current == nil {
			err = errors.New("nothing serves")
		}
		return err
	})
	_, i.app, _ = strings.Cut(info.Sockets[0].Bound, "://")
	_, i.http, _ = strings.Cut(info.HTTP, "://")
	return i
}

func (i *instance) eventually(what string, try func() error) {
	i.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			i.t.Fatalf("%s: %v", what, err)
		}
	}
}

// get asks for a page on a new connection.
func get(address, path string) error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w", path, response.Status, err)
	}
	return nil
}

// usage returns how many descriptors crank has, and how much memory, in KiB.
func (i *instance) usage() (descriptors, rss int) {
	i.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", i.pid))
	if err != nil {
		i.t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.pid))
	if err != nil {
		i.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &rss)
	}
	return len(list), rss
}

// Ten thousand connections that say half a request and stay: to the probes' port, and to the control socket. crank's descriptors
// and memory stay within bounds, the app answers, and so does crank, at once or, on the control socket, when they have gone.
func TestManyConnections(t *testing.T) {
	const (
		connections   = 10000
		mayDescribe   = 64 + 16  // server.MaxConnections, health.MaxConnections
		mayUse        = 64 << 10 // KiB
		half          = "GET /v1/status HTTP/1.1\r\nHost: crank\r\nX: "
		leftForOthers = 200
	)
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(connections, int(limit.Cur)-leftForOthers)
	for _, socket := range []string{"http", "ctl"} {
		t.Run(socket, func(t *testing.T) {
			i := start(t)
			network, address := "tcp", i.http
			if socket == "ctl" {
				network, address = "unix", i.ctl
			}
			before, rssBefore := i.usage()
			var held []net.Conn
			full := 0
			for range n {
				conn, err := net.Dial(network, address)
				if errors.Is(err, syscall.EAGAIN) { // the queue of a unix socket is full
					full++
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, conn)
				_, _ = io.WriteString(conn, half) // it may be closed by now
				if len(held)%1000 == 0 {
					if err := get(i.app, "/"); err != nil {
						t.Fatalf("the app, at %d connections: %v", len(held), err)
					}
				}
			}
			after, rss := i.usage()
			t.Logf("%d connections, %d refused: descriptors %d -> %d, memory %d -> %d KiB", len(held), full, before, after, rssBefore, rss)
			if after > before+mayDescribe || rss > rssBefore+mayUse {
				t.Error("too many")
			}
			if socket == "http" {
				if err := get(i.http, "/livez"); err != nil {
					t.Error(err)
				}
				if _, err := i.client.Status(context.Background()); err != nil {
					t.Error(err)
				}
			}
			for _, conn := range held {
				conn.Close()
			}
			i.eventually("crankctl is answered", func() error {
				_, err := i.client.Status(t.Context())
				return err
			})
			i.eventually("the descriptors are closed", func() error {
				if now, _ := i.usage(); now > before {
					return fmt.Errorf("%d, before %d", now, before)
				}
				return nil
			})
			if err := get(i.app, "/"); err != nil {
				t.Error(err)
			}
		})
	}
}
