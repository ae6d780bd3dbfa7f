//go:build e2e

package docker

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/e2e/images"
)

// terminal is one with a person in front of it, who has attached to a container.
type terminal struct {
	*container
	master *os.File
	ended  chan struct{} // closed when docker has ended and all that it wrote was read
	cli    *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer // what came since the last expect
}

// The size of the terminal.
const rows, columns = 33, 77

// attach starts a container with docker's -it, on a terminal.
func attach(t *testing.T, options []string, image string, argv ...string) *terminal {
	t.Helper()
	args := append(append([]string{"create", "--interactive", "--tty", "--label", label, "--network", "none"}, options...), image)
	c := &container{t: t, ctl: "/crankctl", id: docker(t, append(args, argv...)...)}
	t.Cleanup(c.remove)

	master, slave := openPty(t)
	defer slave.Close()
	term := &terminal{container: c, master: master, ended: make(chan struct{})}
	term.cli = exec.Command("docker", "start", "--attach", "--interactive", c.id)
	term.cli.Stdin, term.cli.Stdout, term.cli.Stderr = slave, slave, slave
	term.cli.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cli.Start(); err != nil {
		t.Fatal(err)
	}
	go term.read()
	t.Cleanup(func() {
		term.cli.Process.Kill()
		term.cli.Wait()
		<-term.ended
		master.Close()
	})
	return term
}

func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "master")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		t.Fatal(err)
	}
	return master, slave
}

// read keeps what is written to the terminal, until nobody has it open any more.
func (p *terminal) read() {
	defer close(p.ended)
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.seen.Write(buf[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// typed types text. ^C is "\x03".
func (p *terminal) typed(text string) {
	p.t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// expect waits until text was written to the terminal, and returns what came before it.
func (p *terminal) expect(text string) (before string) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("%q on the terminal", text), func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := strings.Index(p.seen.String(), text)
		if i < 0 {
			return fmt.Errorf("there is %q", p.seen.String())
		}
		before = string(p.seen.Next(i))
		p.seen.Next(len(text))
		return nil
	})
	return before
}

// exits waits for docker's end, which must have this exit code, as the container has, and returns
// what else was on the terminal.
func (p *terminal) exits(code string) (rest string) {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Errorf("the container has exit code %s, want %s", got, code)
	}
	<-p.ended
	p.cli.Wait()
	if got := fmt.Sprint(p.cli.ProcessState.ExitCode()); got != code {
		p.t.Errorf("docker has exit code %s, want %s", got, code)
	}
	return p.seen.String()
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
		{"\x03", "> "},
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
	p.typed("\x03")
	p.expect("signal 2\r")
	if rest := p.exits("0"); strings.Contains(rest, "signal 2\r") {
		t.Errorf("it came again: %q", rest)
	}
}
