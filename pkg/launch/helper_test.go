package launch

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/output"
	"github.com/crankctl/crank/pkg/supervisor"
)

// helper starts a shell as a check or a probe of generation n.
func (b *bench) helper(start func(supervisor.ID, supervisor.Command, []string, bool) (supervisor.Child, error), n int, c supervisor.Command, script string) *child {
	b.t.Helper()
	helper, err := start(supervisor.ID{Generation: n, Slot: 10 + n}, c, []string{"sh", "-c", script}, false)
	if err != nil {
		b.t.Fatal(err)
	}
	ch := helper.(*child)
	b.t.Cleanup(func() {
		if !ch.launched.IsGone() {
			if err := ch.Signal(syscall.SIGKILL, true); err != nil {
				b.t.Error(err)
			}
			b.exit(ch)
			ch.Close()
		}
	})
	return ch
}

// words waits for the end of a helper, and returns what it wrote.
func (b *bench) words(ch *child) []string {
	b.t.Helper()
	b.exit(ch)
	ch.Close()
	return ch.Tail().Lines
}

// TestHelperEnvironment: a helper has the app's environment and directory, but no socket and nobody to notify.
func TestHelperEnvironment(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Ctl, c.Settings = "/run/crank/web.ctl", []string{"CRANK_BIND"}
		c.Environ = append(c.Environ, "LISTEN_FDS=9", "NOTIFY_SOCKET=/somebody", "CRANK_BIND=:80", "A=1")
	}, "127.0.0.1:0")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func(supervisor.ID, supervisor.Command, []string, bool) (supervisor.Child, error){"check": b.Check, "probe": b.Probe} {
		got := b.words(b.helper(start, 7, supervisor.Command{Dir: dir, Env: []string{"A-", "B=2"}}, `(pwd; env; ls -l /proc/$$/fd | grep -c socket:) >&2`))
		for _, want := range []string{dir, "CRANK_NAME=web", "CRANK_GENERATION=7", "CRANK_SLOT=17", "CRANK_CTL=/run/crank/web.ctl", "B=2", "0"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s: no %s in %q", name, want, got)
			}
		}
		for _, line := range got {
			if strings.HasPrefix(line, "LISTEN_") || strings.HasPrefix(line, "NOTIFY_") || strings.HasPrefix(line, "CRANK_BIND") || line == "A=1" {
				t.Errorf("%s: %s was passed on", name, line)
			}
		}
	}
}

// TestHelperOutput: both streams of a check are kept and passed on; of a probe only stderr is kept, nothing is passed on.
func TestHelperOutput(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Output = output.Inherit })
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b.cfg.Stderr, _ = output.Destinations(int(w.Fd()), int(w.Fd()))
	const script = "cat; echo out; echo err >&2; exit 3"
	if got := b.words(b.helper(b.Check, 1, supervisor.Command{}, script)); !slices.Equal(got, []string{"out", "err"}) {
		t.Errorf("the check's words are %q", got)
	}
	if got := b.words(b.helper(b.Probe, 1, supervisor.Command{}, script)); !slices.Equal(got, []string{"err"}) {
		t.Errorf("the probe's words are %q", got)
	}
	b.closing.Wait()
	w.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "out\nerr\n" {
		t.Errorf("passed on: %q, %v", got, err)
	}
}

func TestHelperCannotStart(t *testing.T) {
	b := newBench(t, nil)
	for _, argv := range [][]string{{"/no/such/program"}, {"no-such-program"}} {
		err := b.failure(b.Check(supervisor.ID{Generation: 1}, supervisor.Command{}, argv, false))
		err2 := b.failure(b.Probe(supervisor.ID{Generation: 1}, supervisor.Command{}, argv, false))
		if !errors.Is(err, os.ErrNotExist) || !errors.Is(err2, os.ErrNotExist) {
			t.Errorf("%s: %v, %v", argv[0], err, err2)
		}
	}
	if len(b.children) > 0 || len(b.probes) > 0 {
		t.Errorf("%d children, %d probes", len(b.children), len(b.probes))
	}
}

// TestCheckThenApp: what the check leaves behind belongs to the generation.
func TestCheckThenApp(t *testing.T) {
	b := newBench(t, nil)
	check := b.helper(b.Check, 3, supervisor.Command{}, `setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 0`)
	if got := b.Owner(check.PID()); got != 3 {
		t.Errorf("the check belongs to generation %d", got)
	}
	b.exit(check)
	if n := check.Others(0); n != 1 {
		t.Errorf("%d others, want 1", n)
	}
	check.Close()
	ch, out := b.shell(3, `echo up > "$OUT"; read forever; kill -STOP $$`)
	out.next()
	if n := ch.Others(syscall.SIGKILL); n != 1 {
		t.Errorf("%d others of the app, want 1", n)
	}
	b.noOthers(ch)
}

// TestProbeIsNoOther: a probe belongs to the generation, and is none of its other processes.
func TestProbeIsNoOther(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(3, `sleep 1000 & echo $! > "$OUT"; read forever; kill -STOP $$`)
	out.next()
	if got := b.Members(3); len(got) != 2 || got[0] != ch.PID() || b.Owner(got[1]) != 3 {
		t.Fatalf("members %d", got)
	}
	probe := b.helper(b.Probe, 3, supervisor.Command{}, "sleep 1000; :")
	if got := b.Members(3); len(got) != 2 {
		t.Errorf("with a probe, members %d", got)
	}
	if got := b.Owner(probe.PID()); got != 3 {
		t.Errorf("the probe belongs to generation %d", got)
	}
	if n := b.Strays(0); n != 0 {
		t.Errorf("%d strays", n)
	}
	if got := b.Members(4); got != nil {
		t.Errorf("members of a generation that does not exist: %d", got)
	}
	if got := b.Owner(os.Getpid()); got != 0 {
		t.Errorf("crank belongs to generation %d", got)
	}
	ch.Others(syscall.SIGKILL)
	b.noOthers(ch)
}

// TestKilledProbe: the group goes with it.
func TestKilledProbe(t *testing.T) {
	b := newBench(t, nil)
	probe := b.helper(b.Probe, 1, supervisor.Command{}, `sleep 1000 & sleep 1000; :`)
	if err := probe.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	b.exit(probe)
	probe.Close()
	for deadline := time.Now().Add(patience); syscall.Kill(-probe.PID(), 0) == nil; time.Sleep(time.Millisecond) {
		if _, _ = b.Reap(); time.Now().After(deadline) {
			t.Fatal("the group still exists")
		}
	}
}

// noOthers waits until the generation has no other processes.
func (b *bench) noOthers(ch *child) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ch.Others(0) > 0; time.Sleep(time.Millisecond) {
		if _, _ = b.Reap(); time.Now().After(deadline) {
			b.t.Fatal("there are other processes")
		}
	}
}
