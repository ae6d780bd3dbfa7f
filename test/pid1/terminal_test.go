package pid1

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal with a person in front of it.
type pty struct {
	master, slave *os.File
	mu            sync.Mutex
	seen          bytes.Buffer // what came since the last expect
	ended         chan struct{}
}

// openPty opens a terminal without echo. The test's end closes it.
func openPty(t *testing.T) *pty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	must(t, err)
	mode, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	must(t, err)
	mode.Lflag &^= unix.ECHO
	must(t, unix.IoctlSetTermios(slave, unix.TCSETS, mode))
	p := &pty{master: os.NewFile(uintptr(fd), "master"), slave: os.NewFile(uintptr(slave), "slave"), ended: make(chan struct{})}
	t.Cleanup(func() {
		p.hangUp()
		p.slave.Close()
		<-p.ended
	})
	go p.read()
	return p
}

// read keeps what is written to the terminal, until it is closed.
func (p *pty) read() {
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

// typed types text. ^C is "\x03", ^Z is "\x1a".
func (p *pty) typed(text string) error {
	_, err := p.master.WriteString(text)
	return err
}

// expect waits until text was written to the terminal, and forgets all up to its end.
func (p *pty) expect(text string) error {
	return eventually(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := strings.Index(p.seen.String(), text)
		if i < 0 {
			return fmt.Errorf("there is no %q on the terminal, but %q", text, p.seen.String())
		}
		p.seen.Next(i + len(text))
		return nil
	})
}

func (p *pty) hangUp() { p.master.Close() }

// foreground is the terminal's foreground process group, as the test sees it.
func (p *pty) foreground() (pgrp int, err error) {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { pgrp, err = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) }); e != nil {
		return 0, e
	}
	return pgrp, err
}

func (p *pty) resize(rows, columns uint16) (err error) {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}); e != nil {
		return e
	}
	return err
}

// TestJobControl drives an interactive bash.
func TestJobControl(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := openPty(t)
		c, err := start(p, options{tty: tty.slave, ttyOut: true}, nil, "/bin/bash", "--norc", "--noprofile", "--noediting", "-i")
		must(t, err)
		defer c.close()
		for _, step := range []struct{ typed, want, foreground string }{
			{"PS1='> '; echo \"flags<$-\"\n", "flags<him", ""}, // m is job control
			{"echo code=$?; sleep 1000\n", "code=0", "sleep"},
			{"\x03", "> ", "bash"}, // Ctrl-C ends what runs in the foreground, and not the shell
			{"echo code=$?\n", "code=130", ""},
			{"sleep 1000\n", "", "sleep"},
			{"\x1a", "Stopped", "bash"},
			{"jobs | wc -l\n", "1", ""},
			{"fg\n", "sleep 1000", "sleep"},
			{"\x03", "> ", "bash"},
			{"echo code=$?\n", "code=130", ""},
			{"sleep 0.01 & wait; echo back''ground\n", "background", ""},
		} {
			must(t, tty.typed(step.typed))
			if err := tty.expect(step.want); err != nil {
				t.Fatalf("after %q: %v", step.typed, err)
			}
			if step.foreground != "" {
				must(t, tty.inForeground(step.foreground))
			}
		}
		must(t, tty.typed("exit 9\n"))
		must(t, c.ends(9))
	})
}

// inForeground waits until the foreground group is led by comm, and that is asleep, not stopped.
func (p *pty) inForeground(comm string) error {
	return eventually(func() error {
		pgrp, err := p.foreground()
		if err != nil {
			return err
		}
		if name, state := statusOf(pgrp, "Name"), statusOf(pgrp, "State"); name != comm || !strings.HasPrefix(state, "S") {
			return fmt.Errorf("the foreground is %q, %q", name, state)
		}
		return nil
	})
}

// TestTerminalSignals: the keys and a resize reach the app as the terminal's foreground, and not a
// second time by way of crank.
func TestTerminalSignals(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := openPty(t)
		c, err := start(p, options{tty: tty.slave}, nil, app("count")...)
		must(t, err)
		defer c.close()
		_, err = c.expect("ready")
		must(t, err)
		for range 3 { // three INT would kill, if crank saw them
			must(t, tty.typed("\x03"))
			_, err = c.expect("signal 2")
			must(t, err)
		}
		must(t, tty.typed("\x1c"))
		_, err = c.expect("signal 3")
		must(t, err)
		must(t, tty.resize(33, 77))
		_, err = c.expect("signal 28")
		must(t, err)
		for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
			must(t, c.signal(sig))
		}
		must(t, c.ends(0))
		for _, line := range c.rest() {
			if line != "signal 10" && line != "signal 15" {
				t.Errorf("the app also got %s", line)
			}
		}
	})
}

// TestTerminalBack: the terminal is the first generation's; once that is gone it is crank's again, and
// later generations have no claim to it. Then Ctrl-C is a stop, and the third one kills.
func TestTerminalBack(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := openPty(t)
		c, err := start(p, options{tty: tty.slave}, []string{"-hup", "swap", "-settle", "0", "-stop", "1m"}, "/bin/sh", "-c",
			`[ "$CRANK_GENERATION" = 1 ] || exec "$0" stay -ignore; echo first; exec sleep 1000`, inside)
		must(t, err)
		defer c.close()
		_, err = c.expect("first")
		must(t, err)
		must(t, tty.inForeground("sleep"))
		must(t, c.signal(syscall.SIGHUP))
		_, err = c.expect("left behind")
		must(t, err)
		must(t, eventually(func() error {
			pgrp, err := tty.foreground()
			if err == nil && pgrp != c.pid {
				err = fmt.Errorf("the foreground is group %d, crank is %d", pgrp, c.pid)
			}
			return err
		}))
		began := time.Now()
		for range 2 {
			must(t, tty.typed("\x03"))
			_, err = c.expect("left behind got 2")
			must(t, err)
		}
		must(t, tty.typed("\x03"))
		must(t, c.ends(128+int(syscall.SIGKILL)))
		must(t, within(began, 0, patience))
	})
}

// TestHangUp: the end of the terminal is a stop, whatever -hup says.
func TestHangUp(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		for _, flags := range [][]string{nil, {"-hup", "swap"}, {"-hup", "ignore"}} {
			tty := openPty(t)
			must(t, inContainer(p, options{tty: tty.slave}, flags,
				[]string{"/bin/sh", "-c", `trap 'exit 9' HUP TERM; echo ready; while :; do sleep 0.05; done`}, func(c *container) error {
					if _, err := c.expect("ready"); err != nil {
						return err
					}
					tty.slave.Close()
					tty.hangUp()
					if err := c.ends(9); err != nil {
						return fmt.Errorf("%q: %w", flags, err)
					}
					return nil
				}))
		}
		// An app that does not end of it is killed at the deadline, like after a TERM.
		tty := openPty(t)
		must(t, inContainer(p, options{tty: tty.slave}, []string{"-stop", stopLimit.String()}, app("stay", "-ignore"), func(c *container) error {
			if _, err := c.expect("left behind"); err != nil {
				return err
			}
			tty.slave.Close()
			tty.hangUp()
			return c.ends(128 + int(syscall.SIGKILL))
		}))
	})
}
