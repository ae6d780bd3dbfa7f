package pid1

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/terminal"
)

// TestJobControl drives an interactive bash.
func TestJobControl(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := terminal.Open(t, false)
		c, err := start(p, options{tty: tty.Slave, ttyOut: true}, nil, "/bin/bash", "--norc", "--noprofile", "--noediting", "-i")
		must(t, err)
		defer c.close()
		for _, step := range []struct{ typed, want, foreground string }{
			{"PS1='> '; echo \"flags<$-\"\n", "flags<him", ""}, // m is job control
			{"echo code=$?; sleep 1000\n", "code=0", "sleep"},
			{terminal.CtrlC, "> ", "bash"}, // Ctrl-C ends what runs in the foreground, and not the shell
			{"echo code=$?\n", "code=130", ""},
			{"sleep 1000\n", "", "sleep"},
			{terminal.CtrlZ, "Stopped", "bash"},
			{"jobs | wc -l\n", "1", ""},
			{"fg\n", "sleep 1000", "sleep"},
			{terminal.CtrlC, "> ", "bash"},
			{"echo code=$?\n", "code=130", ""},
			{"sleep 0.01 & wait; echo back''ground\n", "background", ""},
		} {
			must(t, tty.Type(step.typed))
			if _, err := tty.Expect(step.want); err != nil {
				t.Fatalf("after %q: %v", step.typed, err)
			}
			if step.foreground != "" {
				must(t, tty.AwaitForeground(step.foreground))
			}
		}
		must(t, tty.Type("exit 9\n"))
		must(t, c.ends(9))
	})
}

// TestTerminalSignals: the keys and a resize reach the app as the terminal's foreground, and not a
// second time by way of crank.
func TestTerminalSignals(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := terminal.Open(t, false)
		c, err := start(p, options{tty: tty.Slave}, nil, app("count")...)
		must(t, err)
		defer c.close()
		_, err = c.expect("ready")
		must(t, err)
		for range 3 { // three INT would kill, if crank saw them
			must(t, tty.Type(terminal.CtrlC))
			_, err = c.expect("signal 2")
			must(t, err)
		}
		must(t, tty.Type(terminal.CtrlBackslash))
		_, err = c.expect("signal 3")
		must(t, err)
		must(t, tty.Resize(33, 77))
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

// TestTerminalBack: the terminal is the first generation's; once that is gone it is crank's again, and one that
// was swapped in has no claim to it. Then Ctrl-C is a stop, and the third one kills.
func TestTerminalBack(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := terminal.Open(t, false)
		c, err := start(p, options{tty: tty.Slave}, []string{"-hup", "swap", "-settle", "0", "-stop", "1m"}, "/bin/sh", "-c",
			`[ "$CRANK_GENERATION" = 1 ] || exec "$0" stay -ignore; echo first; exec sleep 1000`, inside)
		must(t, err)
		defer c.close()
		_, err = c.expect("first")
		must(t, err)
		must(t, tty.AwaitForeground("sleep"))
		must(t, c.signal(syscall.SIGHUP))
		_, err = c.expect("left behind")
		must(t, err)
		must(t, eventually(func() error {
			pgrp, err := tty.Foreground()
			if err == nil && pgrp != c.pid {
				err = fmt.Errorf("the foreground is group %d, crank is %d", pgrp, c.pid)
			}
			return err
		}))
		began := time.Now()
		for range 2 {
			must(t, tty.Type(terminal.CtrlC))
			_, err = c.expect("left behind got 2")
			must(t, err)
		}
		must(t, tty.Type(terminal.CtrlC))
		must(t, c.ends(128+int(syscall.SIGKILL)))
		must(t, within(began, 0, patience))
	})
}

// TestHangUp: the end of the terminal is a stop, whatever -hup says.
func TestHangUp(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		for _, flags := range [][]string{nil, {"-hup", "swap"}, {"-hup", "ignore"}} {
			tty := terminal.Open(t, false)
			must(t, inContainer(p, options{tty: tty.Slave}, flags,
				[]string{"/bin/sh", "-c", `trap 'exit 9' HUP TERM; echo ready; while :; do sleep 0.05; done`}, func(c *container) error {
					if _, err := c.expect("ready"); err != nil {
						return err
					}
					tty.Slave.Close()
					tty.HangUp()
					if err := c.ends(9); err != nil {
						return fmt.Errorf("%q: %w", flags, err)
					}
					return nil
				}))
		}
		// An app that does not end of it is killed at the deadline, like after a TERM.
		tty := terminal.Open(t, false)
		must(t, inContainer(p, options{tty: tty.Slave}, []string{"-stop", stopLimit.String()}, app("stay", "-ignore"), func(c *container) error {
			if _, err := c.expect("left behind"); err != nil {
				return err
			}
			tty.Slave.Close()
			tty.HangUp()
			return c.ends(128 + int(syscall.SIGKILL))
		}))
	})
}
