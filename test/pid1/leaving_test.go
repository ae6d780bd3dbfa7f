package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leaving: what the app leaves behind is asked to stop, and is gone before the init is.
var leaving = []behaviour{
	{name: "left in the app's group: asked to stop, and waited for", check: func(p *program, _ []string) error { return seenOff(p, "group") }},
	{name: "left in a session of its own: asked to stop, and waited for", check: func(p *program, _ []string) error { return seenOff(p, "setsid") }},
	{name: "left as a daemon (forked twice): asked to stop, and waited for", check: func(p *program, _ []string) error { return seenOff(p, "twice") }},
	{name: "leaves at once when nothing is left", check: func(p *program, _ []string) error {
		began := time.Now()
		if err := inContainer(p, options{}, nil, app("leave", "3", "nothing"), func(c *container) error { return c.ends(3) }); err != nil {
			return err
		}
		return within(began, 0, patience/2) // the deadline of a stop is patience
	}},
	{name: "ignores TERM: killed at the deadline", check: func(p *program, _ []string) error {
		if !p.ours() {
			return errDash
		}
		return killedInTime(p, "stay", "-ignore")
	}},
}

// seenOff has an app leave a process, and exit with a code.
func seenOff(p *program, how string) error {
	return inContainer(p, options{}, nil, app("leave", "3", how), func(c *container) error {
		if err := c.ends(3); err != nil {
			return err
		}
		if lines := c.rest(); !slices.Contains(lines, "left behind is done") {
			return fmt.Errorf("it was not waited for: %q", lines)
		}
		return nil
	})
}

const (
	stopLimit = 3 * time.Second // in which what is asked to stop has to come to say so
	leeway    = 8 * time.Second // of a busy machine
)

// killedInTime: an app, or what it left, that ignores TERM is gone one deadline after it.
func killedInTime(p *program, role string, args ...string) error {
	return inContainer(p, options{}, []string{"-stop", stopLimit.String()}, app(role, args...), func(c *container) error {
		if _, err := c.expect("left behind"); err != nil {
			return err
		}
		began := time.Now()
		if err := c.signal(syscall.SIGTERM); err != nil {
			return err
		}
		if _, err := c.expect("left behind got 15"); err != nil {
			return err
		}
		if err := c.ends(128 + int(syscall.SIGKILL)); err != nil {
			return err
		}
		return within(began, stopLimit-50*time.Millisecond, stopLimit+leeway)
	})
}

func within(began time.Time, least, most time.Duration) error {
	if took := time.Since(began); took < least || took > most {
		return fmt.Errorf("it took %v, want %v to %v", took, least, most)
	}
	return nil
}

// TestOneDeadline: whatever is left ignores TERM too. There is one deadline for all of it.
func TestOneDeadline(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		for _, how := range []string{"group", "setsid", "twice"} {
			began := time.Now()
			must(t, inContainer(p, options{}, []string{"-stop", stopLimit.String()}, app("leave", "3", how, "-ignore"), func(c *container) error {
				if err := c.ends(3); err != nil {
					return err
				}
				err := within(began, stopLimit-50*time.Millisecond, stopLimit+leeway)
				if lines := c.rest(); !slices.Contains(lines, "left behind got 15") {
					err = errors.Join(err, fmt.Errorf("%s: it was not asked to stop: %q", how, lines))
				}
				return err
			}))
		}
	})
}

// TestLeftBehindBySwap: a generation's processes go with it, also those in sessions of their own, and
// the new generation serves on.
func TestLeftBehindBySwap(t *testing.T) {
	script := `"$0" leave 0 twice; trap 'exit 0' TERM; echo serving; while :; do sleep 0.05; done`
	ourModes(t, func(t *testing.T, p *program) {
		c, err := start(p, options{}, []string{"-hup", "swap", "-settle", "0"}, "/bin/sh", "-c", script, inside)
		must(t, err)
		defer c.close()
		_, err = c.expect("serving")
		must(t, err)
		must(t, c.signal(syscall.SIGHUP))
		// The first generation's; the second, which is not asked to stop, has its trap by then.
		must(t, c.expectAll("left behind is done", "serving"))
		must(t, c.signal(syscall.SIGTERM))
		must(t, c.ends(0))
	})
}

// TestTerminationLog: one line of reason, and the end of what the app wrote on stderr.
func TestTerminationLog(t *testing.T) {
	tests := []struct {
		name   string
		script string
		code   int
		want   []string // in this order
		not    string
	}{
		{"a code", "echo first >&2; echo last words >&2; exit 3", 3, []string{"exited 3", "last words"}, ""},
		{"a signal", "echo ouch >&2; kill -SEGV $$", 139, []string{"SIGSEGV", "ouch"}, ""},
		{"too much", `i=0; while [ $i -lt 3000 ]; do echo "line $i" >&2; i=$((i+1)); done; exit 4`, 4, []string{"exited 4", "line 2999\n"}, "line 1\n"},
		{"nothing said", "exit 5", 5, []string{"exited 5"}, ""},
	}
	ourModes(t, func(t *testing.T, p *program) {
		for _, tt := range tests {
			path := filepath.Join(t.TempDir(), "log")
			flags := []string{"-termination-log", path, "-bind", "127.0.0.1:0", "-ready", "none"} // with a -bind stderr is kept
			must(t, inContainer(p, options{}, flags, []string{"/bin/sh", "-c", tt.script}, func(c *container) error { return c.ends(tt.code) }))
			text, err := os.ReadFile(path)
			must(t, err)
			if len(text) > 4096 {
				t.Errorf("%s: %d bytes", tt.name, len(text))
			}
			at := 0
			for _, want := range tt.want {
				i := strings.Index(string(text[at:]), want)
				if i < 0 {
					t.Fatalf("%s: there is no %q in %q", tt.name, want, text)
				}
				at += i
			}
			if tt.not != "" && strings.Contains(string(text), tt.not) {
				t.Errorf("%s: there is %q", tt.name, tt.not)
			}
			if first, _, _ := strings.Cut(string(text), "\n"); !strings.Contains(first, tt.want[0]) {
				t.Errorf("%s: the first line is %q", tt.name, first)
			}
		}
	})
}

// TestTerminationLogUnwritable: it is not worth a word.
func TestTerminationLogUnwritable(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		for _, path := range []string{"/no/such/directory/log", "/proc/version", "/", "off"} {
			must(t, inContainer(p, options{}, []string{"-termination-log", path}, []string{"/bin/sh", "-c", "exit 6"}, func(c *container) error {
				if err := c.ends(6); err != nil {
					return err
				}
				if text := c.stderr.String(); text != "" {
					return fmt.Errorf("%s: it says %q", path, text)
				}
				return nil
			}))
		}
	})
}
