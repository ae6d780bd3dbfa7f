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

// TestMainReapedByItsParent: no wait4 of crank's sees the end of the main process. Since Linux 6.15 the kernel tells it
// all the same, before that the launched process is the main one again.
func TestMainReapedByItsParent(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(1, `sleep 1000 & first=$!; echo $first > "$OUT"; sleep 1001 & wait $first; echo reaped > "$OUT"
		trap 'exit 4' TERM; echo trapped > "$OUT"; wait`)
	launched, main := ch.PID(), out.number()
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	if exits, _ := b.Reap(); len(exits) != 0 {
		t.Errorf("before its end: %v", exits)
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
	left := 2 // the launched one and the second sleep
	switch {
	case len(exits) == 1 && exits[0].PID == main && exits[0].Signal == syscall.SIGTERM:
		t.Log("the kernel tells how it ended")
		ch.Gone()
	case len(exits) == 0 && ch.PID() == launched:
		t.Log("the kernel does not tell how it ended")
		left--
	default:
		t.Fatalf("got %v, and the main process is %d", exits, ch.PID())
	}
	if exits, _ := b.Reap(); len(exits) != 0 {
		t.Errorf("a second time: %v", exits)
	}
	if n := ch.Others(0); n != left {
		t.Errorf("%d others, want %d", n, left)
	}
	b.seeOff(ch)
}

// TestMainIsZombie: its parent lives, and never takes its status.
func TestMainIsZombie(t *testing.T) {
	b := newBench(t, nil)
	env, _ := b.fifo()
	ch, out := b.shell(1, `sh -c 'echo $$ > "$OUT"; read x < "$GO"; exit 7' & exec sleep 1000`, env)
	main := out.number()
	if err := ch.SetMain(main); err != nil {
		t.Fatal(err)
	}
	if err := ch.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if e := b.reap(main); e.Signal != syscall.SIGTERM {
		t.Errorf("got %v", e)
	}
	ch.Gone()
	if n := ch.Others(0); n != 1 {
		t.Errorf("%d others, want the launched one", n)
	}
	b.seeOff(ch)
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
	if refused != 5 || one.PID() != launched {
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
