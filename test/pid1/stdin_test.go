package pid1

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/pid1/spec"
	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/terminal"
)

// The interactive shells that these tests drive, without user settings and without a line editor.
var shells = map[string][]string{
	"bash": {"--norc", "--noprofile", "--noediting", "-i"},
	"dash": {"-i"},
	"zsh":  {"-f", "+Z", "-o", "nopromptsp", "-i"},
}

// eachShell runs a test with each shell that is installed.
func eachShell(t *testing.T, test func(t *testing.T, name string, command []string)) {
	for name, args := range shells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("NOT TESTED: %s is not installed", name)
			}
			test(t, name, append([]string{path}, args...))
		})
	}
}

const prompt = "what now? "

// step is some input, the terminal's expected output, and the expected foreground process.
type step struct{ typed, want, foreground string }

func dialogue(t *testing.T, tty *terminal.Terminal, steps []step) {
	t.Helper()
	for _, s := range steps {
		must(t, tty.Type(s.typed))
		if _, err := tty.Expect(s.want); err != nil {
			t.Fatalf("after %q: %v", s.typed, err)
		}
		if s.foreground != "" {
			must(t, tty.AwaitForeground(s.foreground))
		}
	}
}

// usesTerminal drives a shell, which is generation n: it prompts, and has job control.
func usesTerminal(t *testing.T, tty *terminal.Terminal, shell string, n int) {
	t.Helper()
	dialogue(t, tty, []step{
		{"", prompt, shell},
		{"echo gen''eration=$CRANK_GENERATION\n", fmt.Sprintf("generation=%d", n), ""},
		{"", prompt, ""},
		{"sleep 1000\n", "", "sleep"},
		{terminal.CtrlC, prompt, shell},
		{"sleep 1000\n", "", "sleep"},
		{terminal.CtrlZ, prompt, shell},
		{"fg\n", "", "sleep"},
		{terminal.CtrlC, prompt, shell},
	})
}

// TestRestartedShell: with -restart always the next shell has the terminal, like the first one, however that one ended.
func TestRestartedShell(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		eachShell(t, func(t *testing.T, name string, command []string) {
			tty := terminal.Open(t, false)
			o := options{tty: tty.Slave, ttyOut: true, spec: spec.Spec{Env: []string{"PATH=" + os.Getenv("PATH"), "PS1=" + prompt, "TERM=dumb"}}}
			c, err := start(p, o, []string{"-restart", "always"}, command...)
			must(t, err)
			defer c.close()
			usesTerminal(t, tty, name, 1)
			must(t, tty.Type("exit\n"))
			usesTerminal(t, tty, name, 2)
			must(t, tty.Type("kill -9 $$\n"))
			usesTerminal(t, tty, name, 3)
			// The foreground is a job of the shell, which is killed with it.
			must(t, tty.Type("sleep 1000\n"))
			must(t, tty.AwaitForeground("sleep"))
			shell, err := c.app(name)
			must(t, err)
			job, err := tty.Foreground()
			must(t, err)
			must(t, syscall.Kill(shell, syscall.SIGSTOP)) // it must not take the terminal back
			must(t, kill(job))
			must(t, kill(shell))
			usesTerminal(t, tty, name, 4)
			// A leftover job that ignores TERM is killed before the next shell starts.
			must(t, tty.Type("(trap '' TERM HUP; exec sleep 1000)\n"))
			must(t, tty.AwaitForeground("sleep"))
			shell, err = c.app(name)
			must(t, err)
			must(t, kill(shell))
			usesTerminal(t, tty, name, 5)
		})
	})
}

// reader is an app that reads a line and exits.
const reader = `read line && echo "$CRANK_GENERATION reads $line"; exit 3`

// looker is an app that prints what its stdin is. It exits on USR1, and on TERM unless it is the generation that stays.
const looker = `trap 'exit 0' USR1; trap '[ $CRANK_GENERATION = "$0" ] || exit 0' TERM
case $(readlink /proc/self/fd/0) in pipe*|/dev/pts*|/dev/tty*) s=stdin;; /dev/null) s=null;; socket*) s=socket;; esac; echo $CRANK_GENERATION has $s
while :; do sleep 0.05; done`

// TestStdinRestart: after a restart, the next app reads what the last one left unread in a pipe.
func TestStdinRestart(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		in, out := mustPipe(t)
		c, err := start(p, options{stdin: in}, []string{"-restart", "always"}, "/bin/sh", "-c", reader)
		must(t, err)
		defer c.close()
		for n := 1; n <= 3; n++ {
			_, err := fmt.Fprintf(out, "line %d\n", n)
			must(t, err)
			_, err = c.expect(fmt.Sprintf("%d reads line %d", n, n))
			must(t, err)
		}
		if strings.Contains(c.stderr.String(), "WARN") {
			t.Errorf("crank warns: %s", &c.stderr)
		}
	})
}

func mustPipe(t *testing.T) (in, out *os.File) {
	t.Helper()
	in, out, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { in.Close(); out.Close() })
	return in, out
}

// TestStdinSwap: at a swap the older generation keeps stdin, and the new one has /dev/null. A restarted one has stdin again, once no other
// generation is alive.
func TestStdinSwap(t *testing.T) {
	for _, kind := range []string{"pipe", "terminal"} {
		t.Run(kind, func(t *testing.T) {
			ourModes(t, func(t *testing.T, p *program) {
				var o options
				var tty *terminal.Terminal
				if kind == "pipe" {
					o.stdin, _ = mustPipe(t)
				} else {
					tty = terminal.Open(t, false)
					o.tty = tty.Slave
				}
				c := startLooker(t, p, o, "none")
				defer c.close()
				expectLine(t, c, "1 has stdin")
				for n := 2; n <= 3; n++ {
					must(t, c.signal(syscall.SIGHUP))
					expectLine(t, c, fmt.Sprintf("%d has null", n))
					must(t, alone(c))
				}
				must(t, c.signal(syscall.SIGUSR1))
				expectLine(t, c, "4 has stdin")
				if tty != nil {
					must(t, tty.AwaitForeground("sh"))
				}
				if n := strings.Count(c.stderr.String(), "stdin kept by older generation"); n != 1 {
					t.Errorf("%d warnings, want one: %s", n, &c.stderr)
				}
			})
		})
	}
}

// TestStdinSocket: with -stdin-socket each generation has the socket, and no warning is logged.
func TestStdinSocket(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		in, _ := mustPipe(t)
		c, err := start(p, options{stdin: in}, []string{"-bind", "127.0.0.1:0", "-stdin-socket", "-ready", "none", "-settle", "0"}, "/bin/sh", "-c", looker, "none")
		must(t, err)
		defer c.close()
		expectLine(t, c, "1 has socket")
		must(t, c.signal(syscall.SIGHUP))
		expectLine(t, c, "2 has socket")
		must(t, alone(c))
		if strings.Contains(c.stderr.String(), "stdin kept") {
			t.Errorf("crank warns: %s", &c.stderr)
		}
	})
}

// TestStdinDraining: while a generation drains, a restarted one has /dev/null.
func TestStdinDraining(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		in, _ := mustPipe(t)
		c := startLooker(t, p, options{stdin: in}, "1")
		defer c.close()
		expectLine(t, c, "1 has stdin")
		must(t, c.signal(syscall.SIGHUP))
		expectLine(t, c, "2 has null")
		must(t, eventually(func() error { // it is current
			if strings.Count(c.stderr.String(), `"generation ready"`) < 2 {
				return fmt.Errorf("it is not current: %s", &c.stderr)
			}
			return nil
		}))
		must(t, c.signal(syscall.SIGUSR1))
		expectLine(t, c, "3 has null")
	})
}

// TestStdinLate: the first generation has stdin even if it was started by crankctl run, and so has one started when nothing is
// left of the one before.
func TestStdinLate(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		in, out := mustPipe(t)
		ctl := filepath.Join(t.TempDir(), "ctl")
		c, err := start(p, options{stdin: in}, []string{"-ctl", ctl, "-conf", "off"})
		must(t, err)
		defer c.close()
		crankctl := func(args ...string) error {
			return exec.Command(filepath.Join(bin, "crankctl"), append([]string{"-ctl", ctl}, args...)...).Run()
		}
		must(t, eventually(func() error { return crankctl("info") }))
		if err := crankctl("run", "-wait", "--", "/no/such/program"); err == nil {
			t.Fatal("a program that does not exist was started")
		}
		_, err = fmt.Fprintln(out, "text")
		must(t, err)
		must(t, crankctl("run", "--", "/bin/sh", "-c", reader))
		expectLine(t, c, "2 reads text")
		must(t, c.ends(3))
	})
}

func startLooker(t *testing.T, p *program, o options, stays string) *container {
	t.Helper()
	c, err := start(p, o, []string{"-v", "1", "-restart", "always", "-hup", "swap", "-settle", "0", "-stop", "1h"}, "/bin/sh", "-c", looker, stays)
	must(t, err)
	return c
}

func expectLine(t *testing.T, c *container, want string) {
	t.Helper()
	_, err := c.expect(want)
	must(t, err)
}

// alone waits until crank has only one child.
func alone(c *container) error {
	return eventually(func() error {
		if children := childrenOf(c.pid); len(children) != 1 {
			return fmt.Errorf("crank has %d children", len(children))
		}
		return nil
	})
}

// TestBackgroundRestart: crank is a background job of a shell on a terminal. None of its generations takes the terminal from the shell.
// Once crank is in the foreground they have it.
func TestBackgroundRestart(t *testing.T) {
	for name := range shells {
		t.Run(name, func(t *testing.T) {
			s := instance.Shell(t, name, bin, t.TempDir())
			s.Press("crank -restart always -- sh -c 'echo up$CRANK_GENERATION; exec sleep 1000' &\n")
			for n := 1; n <= 3; n++ {
				s.Await(fmt.Sprintf("up%d", n))
				must(t, s.AwaitForeground(name))
				s.Succeeds("echo still here", "still here")
				if n < 3 {
					s.Succeeds("crankctl kill -ready -signal KILL", "")
				}
			}
			s.Press("fg\n")
			must(t, s.AwaitForeground("sleep"))
			app, err := s.Foreground()
			must(t, err)
			_, crank := processes.Stat(app)
			must(t, kill(app))
			s.Await("up4")
			must(t, s.AwaitForeground("sleep"))
			must(t, syscall.Kill(crank, syscall.SIGTERM))
			s.Await(terminal.Prompt)
			must(t, s.AwaitForeground(name))
			s.Exit()
		})
	}
}

// TestForegroundLater: an app that reads the terminal in the background is stopped, as it would be without crank, and goes on with fg.
func TestForegroundLater(t *testing.T) {
	for name := range shells {
		t.Run(name, func(t *testing.T) {
			s := instance.Shell(t, name, bin, t.TempDir())
			s.Press(`crank -- sh -c 'echo p""id=$$.; exec cat' &` + "\n")
			s.Await("pid=")
			app, err := strconv.Atoi(s.Await("."))
			must(t, err)
			must(t, eventually(func() error {
				if state, _ := processes.Stat(app); state != "T" {
					return fmt.Errorf("the app is in state %q", state)
				}
				return nil
			}))
			must(t, s.AwaitForeground(name))
			s.Press("fg\n")
			must(t, s.AwaitForeground("cat"))
			s.Press("hello\n")
			s.Await("hello\r\nhello\r\n") // the echo, and cat's
			s.Press("\x04")
			s.Await(terminal.Prompt)
			must(t, s.AwaitForeground(name))
			s.Exit()
		})
	}
}

// TestBackgroundNamespace: crank, PID 1 of a namespace, is a background job of a shell outside, whose process group has no id there.
func TestBackgroundNamespace(t *testing.T) {
	for name := range shells {
		t.Run(name, func(t *testing.T) {
			s := instance.Shell(t, name, bin, t.TempDir())
			s.Press(`unshare --user --map-root-user --pid --fork --mount-proc crank -- sh -c 'echo u""p; exec sleep 1000' &` + "\n")
			s.Await("up\r\n")
			must(t, s.AwaitForeground(name))
			s.Succeeds("echo still here", "still here")
			s.Press("fg\n")
			must(t, s.AwaitForeground("sleep"))
			s.Press(terminal.CtrlC)
			s.Await(terminal.Prompt)
			must(t, s.AwaitForeground(name))
			s.Exit()
		})
	}
}

// TestRestartedNamespace: a crank whose process group has no id in its namespace cannot take the terminal back. The next app has it all the same.
func TestRestartedNamespace(t *testing.T) {
	s := instance.Shell(t, "bash", bin, t.TempDir())
	s.Press(`unshare --user --map-root-user --pid --fork --mount-proc crank -restart always -- sh -c 'echo u""p$CRANK_GENERATION; exec cat'` + "\n")
	for n := 1; n <= 3; n++ {
		s.Await(fmt.Sprintf("up%d\r\n", n))
		must(t, s.AwaitForeground("cat"))
		s.Press("hello\n")
		s.Await("hello\r\nhello\r\n")
		if n < 3 {
			s.Press("\x04")
		}
	}
	app, err := s.Foreground()
	must(t, err)
	_, crank := processes.Stat(app)
	must(t, syscall.Kill(crank, syscall.SIGTERM))
	s.Await(terminal.Prompt)
	must(t, s.AwaitForeground("bash"))
	s.Exit()
}
