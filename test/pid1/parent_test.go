package pid1

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/pid1/spec"
	"github.com/crankctl/crank/test/processes"
)

// manager is the service manager above crank.
type manager struct {
	address string
	conn    *net.UnixConn
}

func startManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{address: filepath.Join(t.TempDir(), "notify")}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.address, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// expect reads messages until one has line.
func (m *manager) expect(line string) error {
	var seen []string
	buf := make([]byte, 1<<16)
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			return fmt.Errorf("nobody said %q, but %q: %w", line, seen, err)
		}
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), line) {
			return nil
		}
		seen = append(seen, string(buf[:n]))
	}
}

// TestNotifyParent: under a service manager crank says how it is going, and its app, which has a
// NOTIFY_SOCKET of its own, does not see that one. PID 1 has nobody above it unless told so.
func TestNotifyParent(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		m := startManager(t)
		flags := []string{"-hup", "swap", "-settle", "0"} // the shortest swap that there is
		if !p.subreaper {
			flags = append(flags, "-notify-parent")
		}
		o := options{spec: spec.Spec{Env: []string{"PATH=/usr/bin:/bin", "NOTIFY_SOCKET=" + m.address, "WATCHDOG_USEC=200000"}}}
		c, err := start(p, o, flags, "/bin/sh", "-c", `trap 'exit 0' TERM
			trap 'printf STATUS=busy >&$NOTIFY_FD' USR1
			trap 'printf RELOADING=1 >&$NOTIFY_FD; printf READY=1 >&$NOTIFY_FD' USR2
			echo $NOTIFY_SOCKET; while :; do sleep 0.05; done`)
		must(t, err)
		defer c.close()
		if socket, err := c.expect("/"); err != nil || "/"+socket == m.address {
			t.Fatalf("the app has %q, %v", socket, err)
		}
		must(t, m.expect("READY=1"))
		must(t, m.expect("WATCHDOG=1"))
		must(t, c.signal(syscall.SIGUSR1))
		must(t, m.expect("STATUS=generation 1 is ready: busy")) // of the app
		must(t, c.signal(syscall.SIGUSR2))
		must(t, m.expect("RELOADING=1")) // likewise
		must(t, m.expect("READY=1"))
		must(t, c.signal(syscall.SIGHUP))
		// systemctl reload waits for both (Type=notify-reload), however short the swap was.
		must(t, m.expect("RELOADING=1"))
		must(t, m.expect("READY=1"))
		if _, err := c.expect("/"); err != nil { // the second one has its trap
			t.Fatal(err)
		}
		must(t, c.signal(syscall.SIGTERM))
		must(t, m.expect("STOPPING=1"))
		must(t, c.ends(0))
	})
}

// TestNotifyParentNot: PID 1 says nothing by itself.
func TestNotifyParentNot(t *testing.T) {
	m := startManager(t)
	o := options{spec: spec.Spec{Env: []string{"NOTIFY_SOCKET=" + m.address}}}
	must(t, inContainer(inits[0], o, nil, []string{"/bin/true"}, func(c *container) error { return c.ends(0) }))
	must(t, m.conn.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	if n, err := m.conn.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it said %d bytes, %v", n, err)
	}
}

// TestInstall: what was installed works, from where it was put, over what was there, whatever links are in the way.
func TestInstall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	crank := filepath.Join(bin, "crank")
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("precious"), 0o644))
	for _, prepare := range []func() error{
		func() error { return nil },
		func() error { return nil }, // over itself
		func() error { // over links that lead elsewhere
			for _, name := range []string{"crank", "crankctl", "crankx"} {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.Remove(path), os.Symlink(outside, path)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		must(t, prepare())
		if out, err := exec.Command(crank, "-install", dir).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{"crank", "crankctl", "crankx"}) {
			t.Errorf("%s has %q", dir, names)
		}
		for _, command := range [][]string{{"crank", "-version"}, {"crank", "--", "/bin/true"}, {"crankctl", "version"}, {"crankx", "app", "version"}} {
			cmd := exec.Command(filepath.Join(dir, command[0]), command[1:]...)
			cmd.Env = processes.Environment("CRANK_PREFIX=" + outside + ".run")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%q: %v\n%s", command, err, out)
			}
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("a file outside was written to: %q, %v", text, err)
	}
	// While it runs: a rename does not meet "text file busy".
	installed := *inits[0]
	installed.path = filepath.Join(dir, "crank")
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, inContainer(&installed, options{}, nil, app("count"), func(c *container) error {
		if _, err := c.expect("ready"); err != nil {
			return err
		}
		if out, err := exec.Command(crank, "-install", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		if err := c.signal(syscall.SIGTERM); err != nil {
			return err
		}
		return c.ends(0)
	}))
	if out, err := exec.Command(crank, "-install", outside).CombinedOutput(); err == nil || !strings.Contains(string(out), outside) {
		t.Errorf("into a file: %v, %s", err, out)
	}
}

// TestGoVariables: what the environment says to Go programs is the app's. It gets it unchanged, and
// crank, which is one too, works on: it is not for ever collecting garbage, and stays small. (GODEBUG
// cannot be undone, the runtime reads it first; so what it says here is harmless.)
func TestGoVariables(t *testing.T) {
	variables := []string{"GODEBUG=madvdontneed=1", "GOGC=1", "GOMAXPROCS=64", "GOMEMLIMIT=1", "GOTRACEBACK=crash"}
	ourModes(t, func(t *testing.T, p *program) {
		in, orders, err := pipe()
		must(t, err)
		defer in.Close()
		defer orders.Close()
		o := options{stdin: in, spec: spec.Spec{Env: append([]string{"PATH=/usr/bin:/bin"}, variables...)}}
		script := `env | grep ^GO | sort; echo end; unset GODEBUG GOGC GOMEMLIMIT; exec "$0" orphans 5000 500`
		c, err := start(p, o, nil, "/bin/sh", "-c", script, inside)
		must(t, err)
		defer c.close()
		for _, want := range append(variables, "end") {
			if line := <-c.lines; line != want {
				t.Fatalf("the app has %q, want %q", line, want)
			}
		}
		_, err = c.expect("done")
		must(t, err)
		must(t, c.alone("inside"))
		now, _ := lookup(c.pid)
		threads, _ := strconv.Atoi(statusOf(c.pid, "Threads"))
		t.Logf("%d threads, %v of CPU, %d KiB resident", threads, now.cpu, resident(c.pid)>>10)
		if threads > 40 || now.cpu > 5*time.Second || resident(c.pid) > 32<<20 {
			t.Error("that is too much")
		}
		orders.Close()
		must(t, c.ends(0))
		if text := c.stderr.String(); text != "" {
			t.Errorf("it says %.200q ...", text)
		}
	})
}
