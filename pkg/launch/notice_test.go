package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/test/root"
)

// daemonised is the variable that turns this test binary into a daemon that waits for a socket matching the pattern, sends READY=1 to
// it, tells the test its pid through OUT, and keeps running.
const daemonised = "LAUNCH_TEST_DAEMON"

func beDaemon(pattern string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		found, _ := filepath.Glob(pattern)
		if len(found) == 0 {
			continue
		}
		conn, err := net.Dial("unixgram", found[0])
		if err != nil {
			continue // it is not bound yet
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("READY=1")); err != nil {
			return err
		}
		if err := os.WriteFile(os.Getenv("OUT"), fmt.Appendln(nil, os.Getpid()), 0); err != nil {
			return err
		}
		time.Sleep(patience) // the test kills it before that
		return nil
	}
	return errors.New("no socket matches " + pattern)
}

// daemonFor starts beDaemon from generation n the way daemons start: forked twice, in a session of its own, and with only this environment.
func (b *bench) daemonFor(n int, pattern, variables string) (*child, *lines) {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.shell(n, `setsid sh -c '(exec env -i OUT="$OUT" '"$VARIABLES"' "$SELF") & exit 0'; kill -STOP $$`,
		"SELF="+self, "VARIABLES="+variables+" "+daemonised+"="+pattern)
}

// TestDaemonSpeaksForAnother: a daemon of one generation, identified only by its ancestry, finds the path of the next one's
// socket. READY counts neither from it nor from any other process that crank does not know to belong to that generation.
func TestDaemonSpeaksForAnother(t *testing.T) {
	refused := make(chan bool, 10)
	b := newBench(t, func(c *Config) { c.Observe = func(_ []string, r bool) { refused <- r } })
	one, out := b.daemonFor(1, filepath.Join(b.dir, "web.notify", "notify-2-*"), "")
	two, _ := b.shell(2, "kill -STOP $$")
	daemon := out.number()
	select {
	case s := <-b.notices:
		t.Errorf("message %+v counted for generation %d", s.message, s.generation)
	case r := <-refused:
		if !r {
			t.Errorf("READY counted for generation 2: %+v", (<-b.notices).message)
		}
	case <-time.After(patience):
		t.Fatal("no message received")
	}
	b.kill(daemon)
	b.end(two)
	b.end(one)
}

// TestDaemonSpeaks: a daemon that has left its group, its session and its parents counts for the generation named in its environment.
func TestDaemonSpeaks(t *testing.T) {
	for name, c := range map[string]struct {
		variables string
		counts    bool
	}{
		"crank's variables":           {"CRANK_NAME=web CRANK_GENERATION=1", true},
		"those of another generation": {"CRANK_NAME=web CRANK_GENERATION=7", false},
		"those of another instance":   {"CRANK_NAME=db CRANK_GENERATION=1", false},
		"nothing of crank's":          {"", false},
	} {
		refused := make(chan bool, 10)
		b := newBench(t, func(c *Config) { c.Observe = func(_ []string, r bool) { refused <- r } })
		ch, out := b.daemonFor(1, filepath.Join(b.dir, "web.notify", "notify-1-*"), c.variables)
		daemon := out.number()
		if r := <-refused; r == c.counts {
			t.Errorf("with %s in its environment, refused: %v", name, r)
		}
		if c.counts {
			<-b.notices
		}
		b.kill(daemon)
		b.end(ch)
	}
}

// kill ends an orphan.
func (b *bench) kill(pid int) {
	b.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		b.t.Error(err)
	}
	b.reap(pid)
}

// TestVoidMessages: a datagram with a NUL byte inside has no effect on either socket. Each one is counted as refused, and
// the first of each generation is logged.
func TestVoidMessages(t *testing.T) {
	var logged []string
	refused := make(chan bool, 10)
	b := newBench(t, func(c *Config) {
		c.Observe = func(_ []string, r bool) { refused <- r }
		c.Log = funcr.New(func(_, line string) {
			if strings.Contains(line, "invalid notify message ignored") {
				logged = append(logged, line)
			}
		}, funcr.Options{})
	})
	ch, out := b.shell(1, `printf 'READY=1\nX\0Y' >&"$NOTIFY_FD"; echo sent > "$OUT"; kill -STOP $$`)
	out.next()
	conn, err := net.Dial("unixgram", ch.receiver.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"READY=1\x00\nSTATUS=x", strings.Repeat("X", notify.MaxDatagram) + "\nREADY=1"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		select {
		case r := <-refused:
			if !r {
				t.Error("an invalid message counted")
			}
		case s := <-b.notices:
			t.Fatalf("it took effect: %+v", s.message)
		case <-time.After(patience):
			t.Fatal("it was not counted")
		}
	}
	b.idle(ch)
	if len(logged) != 1 {
		t.Errorf("logged %q, want one line", logged)
	}
}

// TestShortLivedSender: a sender that has ended before it could be looked up counts at an abstract address if a process of the generation
// has its user, as behind setpriv, or a shell that has started one.
func TestShortLivedSender(t *testing.T) {
	root.Need(t)
	b := newBench(t, nil)
	dead, _ := b.shell(9, "exit 0")
	b.exit(dead)
	for n, script := range map[int]string{
		1: `exec setpriv --reuid 12345 --regid 12345 --clear-groups sh -c 'echo runs >&3; kill -STOP $$' 3> "$OUT"`,
		2: `setpriv --reuid 12345 --regid 12345 --clear-groups sh -c 'echo runs >&3; kill -STOP $$' 3> "$OUT"; exit`,
	} {
		ch, out := b.shell(n, script)
		out.next()
		for uid, refused := range map[int]bool{12345: false, 12346: true} {
			if why := b.strange(n, notify.Sender{PID: dead.PID(), UID: uid, Abstract: true}); (why != "") != refused {
				t.Errorf("of uid %d: %q", uid, why)
			}
		}
		if why := b.strange(7, notify.Sender{PID: dead.PID(), UID: 12345, Abstract: true}); why != strangeUser {
			t.Errorf("for a generation that is gone: %q", why)
		}
		b.end(ch)
	}
}
