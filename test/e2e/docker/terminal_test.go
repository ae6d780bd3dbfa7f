//go:build e2e

package docker

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/e2e/images"
	"github.com/crankctl/crank/test/terminal"
)

// attached is a user's terminal that is attached to a container.
type attached struct {
	*container
	tty *terminal.Terminal
	cli *exec.Cmd
}

// The size of the terminal.
const rows, columns = 33, 77

// attach starts a container with docker's -it, on a terminal.
func attach(t *testing.T, options []string, image string, argv ...string) *attached {
	t.Helper()
	args := append(append([]string{"create", "--interactive", "--tty", "--label", label, "--network", "none"}, options...), image)
	c := &container{t: t, ctl: "/crankctl", id: docker(t, append(args, argv...)...)}
	t.Cleanup(c.remove)

	a := &attached{container: c, tty: terminal.Open(t, true), cli: exec.Command("docker", "start", "--attach", "--interactive", c.id)}
	if err := a.tty.Resize(rows, columns); err != nil {
		t.Fatal(err)
	}
	if err := a.tty.Start(a.cli); err != nil {
		t.Fatal(err)
	}
	a.tty.Slave.Close() // so that the terminal ends with docker
	t.Cleanup(func() {
		a.cli.Process.Kill()
		a.cli.Wait()
	})
	return a
}

// typed types text.
func (a *attached) typed(text string) {
	a.t.Helper()
	if err := a.tty.Type(text); err != nil {
		a.t.Fatal(err)
	}
}

// expect waits until text has been written to the terminal.
func (a *attached) expect(text string) {
	a.t.Helper()
	if _, err := a.tty.Expect(text); err != nil {
		a.t.Fatal(err)
	}
}

// exits waits for docker's end, which must have this exit code, as the container has, and returns
// what else was on the terminal.
func (a *attached) exits(code string) (rest string) {
	a.t.Helper()
	if got := a.wait(); got != code {
		a.t.Errorf("the container has exit code %s, want %s", got, code)
	}
	<-a.tty.Ended
	a.cli.Wait()
	if got := fmt.Sprint(a.cli.ProcessState.ExitCode()); got != code {
		a.t.Errorf("docker has exit code %s, want %s", got, code)
	}
	return a.tty.Seen()
}

// TestTerminal: with docker run -it an interactive shell has its terminal, of the right size, is in the
// foreground and has job control; Ctrl-C ends what the shell runs, and neither the shell nor crank.
func TestTerminal(t *testing.T) {
	t.Parallel()
	p := attach(t, nil, build(t, "debian"), "bash", "--norc", "--noprofile", "--noediting", "-i")
	for _, step := range []struct{ typed, want string }{
		{"PS1='> '; echo \"flags<$-\"\n", "flags<him"}, // m is job control
		{"tty\n", "/dev/pts/0"},
		{"read -r stat </proc/$$/stat; set -- $stat; echo same=$(($5 == $8))\n", "same=1"}, // its group is in the foreground
		{"sh -c 'echo be\"\"gin; exec sleep 1000'\n", "begin"},
		{terminal.CtrlC, "> "},
		{"echo code=$?\n", "code=130"},
		{"stty size\n", fmt.Sprint(rows, " ", columns)},
	} {
		p.typed(step.typed)
		p.expect(step.want)
	}
	p.typed("exit 9\n")
	p.exits("9")
}

// TestTerminalServer: Ctrl-C reaches a server as well, once.
func TestTerminalServer(t *testing.T) {
	t.Parallel()
	p := attach(t, []string{"--env", "CRANK_BIND=127.0.0.1:8080"}, images.App, "/app", "-print-signals")
	p.expect("serving 127.0.0.1:8080")
	p.typed(terminal.CtrlC)
	p.expect("signal 2\r")
	if rest := p.exits("0"); strings.Contains(rest, "signal 2\r") {
		t.Errorf("it came again: %q", rest)
	}
}
