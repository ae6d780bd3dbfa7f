package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

func (l *lines) number() int {
	l.t.Helper()
	n, err := strconv.Atoi(l.next())
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// fifo is what a script waits for: "read x < "$GO"" goes on once the test calls release.
func (b *bench) fifo() (env string, release func()) {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "go")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return "GO=" + path, func() {
		if err := os.WriteFile(path, []byte("\n"), 0); err != nil {
			b.t.Error(err)
		}
	}
}

// reap waits until a process of crank's has ended, and returns how Reap reports that. ends is the pid that
// the report has.
func (b *bench) reap(ends int) proc.Exit {
	b.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		exits, _ := b.Reap()
		for _, e := range exits {
			if e.PID == ends {
				return e
			}
		}
	}
	b.t.Fatalf("no end of %d was reported", ends)
	return proc.Exit{}
}

// seeOff ends what is left of a generation.
func (b *bench) seeOff(ch *child) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ch.Others(syscall.SIGKILL) > 0; b.Reap() {
		if time.Now().After(deadline) {
			b.t.Fatal("they do not end")
		}
	}
	ch.Close()
}

// TestDaemon: the launched process ends, and the main one lives on as a child of crank's.
func TestDaemon(t *testing.T) {
	for _, how := range []string{"", "setsid "} {
		b := newBench(t, nil)
		env, release := b.fifo()
		ch, out := b.shell(1, how+`sh -c 'echo $$ > "$OUT"; exec sleep 1000' & read x < "$GO"; exit 0`, env)
		launched, main := ch.PID(), out.number()
		if err := ch.SetMain(main); err != nil {
			t.Fatal(err)
		}
		if ch.PID() != main {
			t.Fatalf("the main process is %d, want %d", ch.PID(), main)
		}
		release()
		if e := b.reap(launched); e.Code != 0 || ch.main.IsGone() {
			t.Fatalf("%v; the main process is gone: %v", e, ch.main.IsGone())
		}
		if got := b.Owner(main); got != 1 {
			t.Errorf("the main process belongs to %d", got)
		}
		if n := ch.Others(0); n != 0 {
			t.Errorf("%d others", n)
		}
		if err := ch.Signal(syscall.SIGTERM, how == ""); err != nil { // with its group, and alone
			t.Fatal(err)
		}
		if e := b.reap(main); e.Signal != syscall.SIGTERM {
			t.Errorf("got %v", e)
		}
		ch.Gone()
		ch.Close()
	}
}

// TestMainReapedByItsParent: a named process ends, and the launched one, still running, reaps it. The launched one is the main process
// again, and the generation ends with it.
func TestMainReapedByItsParent(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(1, `sleep 1000 & first=$!; echo $first > "$OUT"; sleep 1001 & wait $first; echo reaped > "$OUT"
		trap 'exit 4' TERM; echo trapped > "$OUT"; wait`)
	launched, main := ch.PID(), out.number()
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	if b.Reap(); ch.PID() != main {
		t.Errorf("before its end, the main process is %d", ch.PID())
	}
	if err := ch.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"reaped", "trapped"} {
		if got := out.next(); got != want {
			t.Fatalf("got %q", got)
		}
	}
	exits, _ := b.Reap()
	if ch.PID() != launched || slices.ContainsFunc(exits, func(e proc.Exit) bool { return e.PID == main || e.PID == launched }) {
		t.Fatalf("got %v, and the main process is %d, want the launched one, %d", exits, ch.PID(), launched)
	}
	if n := ch.Others(0); n != 1 {
		t.Errorf("%d others, want the second sleep", n)
	}
	if err := ch.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if e := b.reap(launched); e.Code != 4 {
		t.Errorf("got %v", e)
	}
	ch.Gone()
	b.seeOff(ch)
}

// TestMainIsZombie: the launched process never reaps the named one.
func TestMainIsZombie(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(1, `sleep 1000 & echo $! > "$OUT"; exec sleep 1000`)
	launched, main := ch.PID(), out.number()
	awaitProgram(t, launched, "sleep")
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	b.mainEnds(ch, launched)
	if n := ch.Others(0); n != 0 {
		t.Errorf("%d others", n)
	}
	if err := ch.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if e := b.reap(launched); e.Signal != syscall.SIGTERM {
		t.Errorf("got %v", e)
	}
	ch.Gone()
	b.seeOff(ch)
}

// TestMainOfAnotherParent: the launched process has ended, and another process reaps the named one. The generation ends
// with it, as a failure.
func TestMainOfAnotherParent(t *testing.T) {
	b := newBench(t, nil)
	env, release := b.fifo()
	ch, out := b.shell(1, `sh -c 'sleep 1000 & echo $! > "$OUT"; wait; exec sleep 1000' & read x < "$GO"; exit 0`, env)
	launched, main := ch.PID(), out.number()
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	release()
	if e := b.reap(launched); e.Code != 0 || ch.PID() != main || ch.main.IsGone() {
		t.Fatalf("%v, and the main process is %d", e, ch.PID())
	}
	if err := ch.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if e := b.reap(main); e.Code != 1 || e.Signal != 0 {
		t.Errorf("got %v", e)
	}
	ch.Gone()
	b.seeOff(ch)
}

// TestBothEnd: the named process ends, and right after it the launched one, like a wrapper that waits for it, before crank looks.
func TestBothEnd(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(1, `sleep 1000 & echo $! > "$OUT"; wait $!; exit 9`)
	launched, main := ch.PID(), out.number()
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	if err := ch.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	for runs(launched) {
		time.Sleep(time.Millisecond)
	}
	if e := b.reap(launched); e.Code != 9 || ch.PID() != launched {
		t.Errorf("got %v, and the main process is %d, want the launched one, %d", e, ch.PID(), launched)
	}
	ch.Gone()
	b.seeOff(ch)
}

// mainEnds kills the named main process, and waits until the launched one is the main process again.
func (b *bench) mainEnds(ch *child, launched int) {
	b.t.Helper()
	if err := ch.Signal(syscall.SIGKILL, false); err != nil {
		b.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ch.PID() != launched && !ch.main.IsGone(); time.Sleep(time.Millisecond) {
		if b.Reap(); time.Now().After(deadline) {
			b.t.Fatalf("the main process is %d, want the launched one, %d", ch.PID(), launched)
		}
	}
	if ch.PID() != launched {
		b.t.Fatalf("the generation has ended with process %d", ch.PID())
	}
}

// awaitProgram waits until a process has executed a program.
func awaitProgram(t *testing.T, pid int, name string) {
	t.Helper()
	for deadline := time.Now().Add(patience); proc.Name(pid) != name; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d runs %s", pid, proc.Name(pid))
		}
	}
}

func TestSetMain(t *testing.T) {
	refused := 0
	b := newBench(t, func(c *Config) {
		c.Observe = func(_ []string, r bool) {
			if r {
				refused++
			}
		}
	})
	one, out := b.shell(1, `sleep 1000 & echo $! > "$OUT"
		(until grep -q sleep /proc/$$/comm; do :; done) & echo $! > "$OUT"; exec sleep 1000`) // the last one is a zombie: sleep does not wait, as the shell might
	launched, helper, zombie := one.PID(), out.number(), out.number()
	two, _ := b.shell(2, "kill -STOP $$")
	for zombieNow := false; !zombieNow; time.Sleep(time.Millisecond) {
		e, _ := proc.Lookup(zombie)
		zombieNow = e.Zombie
	}
	for _, c := range []struct {
		name string
		pid  int
		err  error
	}{
		{"another generation's", two.PID(), errStranger},
		{"crank itself", os.Getpid(), errStranger},
		{"somebody else's", os.Getppid(), errStranger},
		{"of no process", 1 << 30, os.ErrProcessDone},
		{"of one that has ended", zombie, os.ErrProcessDone},
	} {
		if err := one.SetMain(c.pid); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
	}
	if refused != 3 || // an ended process is not an error
		one.PID() != launched {
		t.Errorf("%d were refused; the main process is %d", refused, one.PID())
	}
	for _, pid := range []int{launched, helper, helper, launched, helper} {
		if err := one.SetMain(pid); err != nil || one.PID() != pid {
			t.Errorf("%d: %v, the main process is %d", pid, err, one.PID())
		}
	}
	// Everything is reached, the launched one included.
	var others []int
	for _, e := range one.members() {
		others = append(others, e.PID)
	}
	if !slices.Equal(others, []int{launched}) {
		t.Errorf("others %v, want the launched one, %d", others, launched)
	}
	if err := one.Signal(syscall.SIGKILL, true); err != nil { // both are in one group
		t.Fatal(err)
	}
	b.reap(helper)
	one.Gone()
	b.seeOff(one)
}

// TestMainOOMScore: what was raised for the launched one is given back to all.
func TestMainOOMScore(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(2, `sleep 1000 & echo $! > "$OUT"; kill -STOP $$`)
	launched, main := ch.PID(), out.number()
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	ch.Promote()
	for _, pid := range []int{launched, main} {
		score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil || strings.TrimSpace(string(score)) != b.oomScore() {
			t.Errorf("process %d has %q, %v", pid, score, err)
		}
	}
	if err := ch.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	b.reap(main)
	ch.Gone()
	b.seeOff(ch)
}

// TestNoDescriptorIsLost: processes come and go, and so do the descriptors for them.
func TestNoDescriptorIsLost(t *testing.T) {
	b := newBench(t, nil)
	count := func() int { e, _ := os.ReadDir("/proc/self/fd"); return len(e) }
	before := 0
	for n := 1; n <= 4; n++ {
		env, release := b.fifo()
		ch, out := b.shell(n, `sleep 1000 & echo $! > "$OUT"; read x < "$GO"`, env)
		main := out.number()
		if err := ch.SetMain(main); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			launched := ch.launched.PID()
			release()
			b.reap(launched)
		}
		if err := ch.Signal(syscall.SIGKILL, true); err != nil {
			t.Fatal(err)
		}
		b.reap(main)
		ch.Gone()
		b.seeOff(ch)
		b.closing.Wait()
		out.f.Close()
		if n == 1 {
			before = count()
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}

// idle waits until all messages were handled.
func (b *bench) idle(ch *child) {
	for !ch.receiver.Idle() {
		time.Sleep(time.Millisecond)
	}
}

// TestWrapperWarning: it is said once, and only where LISTEN_PID names somebody else.
func TestWrapperWarning(t *testing.T) {
	const ready = `printf READY=1 >&"$NOTIFY_FD"; kill -STOP $$`
	for _, c := range []struct {
		name, script, bind string
		listenPID          bool
		want               int
	}{
		{"itself", ready, "127.0.0.1:0", true, 0},
		{"its child, twice", `sh -c 'printf READY=1 >&"$NOTIFY_FD"; printf READY=1 >&"$NOTIFY_FD"; kill -STOP $$'; true`, "127.0.0.1:0", true, 1},
		{"without LISTEN_PID", `sh -c '` + ready + `'; true`, "127.0.0.1:0", false, 0},
		{"without sockets", `sh -c '` + ready + `'; true`, "", true, 0},
		{"as crankctl exec does", `sh -c 'export LISTEN_PID=$$; exec sh -c "$0"' '` + ready + `'; true`, "127.0.0.1:0", true, 0},
		{"with MAINPID", `sh -c 'printf "READY=1\nMAINPID=$$" >&"$NOTIFY_FD"; kill -STOP $$'; true`, "127.0.0.1:0", true, 0},
		{"dead already", `printf STATUS=x >&"$NOTIFY_FD"; (printf READY=1 >&"$NOTIFY_FD"); kill -STOP $$`, "127.0.0.1:0", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var warnings []string
			binds := []string{}
			if c.bind != "" {
				binds = append(binds, c.bind)
			}
			b := newBench(t, func(cfg *Config) {
				cfg.ListenPID = c.listenPID
				cfg.Log = funcr.New(func(_, line string) {
					if strings.Contains(line, "READY=1 sender is not the LISTEN_PID process") {
						warnings = append(warnings, line)
					}
				}, funcr.Options{})
			}, binds...)
			if c.name == "dead already" {
				// Its message is read only when it has gone.
				stopped := make(chan struct{})
				b.notice = func(int, notify.Message) { <-stopped }
				ch, _ := b.shell(1, c.script)
				awaitStopped(t, ch.PID())
				close(stopped)
				b.idle(ch)
				if len(warnings) != 0 {
					t.Errorf("warned of one that is gone: %q", warnings)
				}
				return
			}
			ch, _ := b.shell(1, c.script)
			for range 1 + strings.Count(c.script, "; printf READY") {
				<-b.notices
			}
			b.idle(ch)
			if len(warnings) != c.want {
				t.Errorf("%d warnings, want %d: %q", len(warnings), c.want, warnings)
			}
		})
	}
}
