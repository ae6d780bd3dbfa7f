// Package terminal is a pseudoterminal (pty(7)), for tests of what a user does in front of a terminal.
package terminal

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/processes"
)

// patience is how long something that should happen immediately may take on a busy machine.
const patience = 2 * time.Minute

// Keys that send signals to the foreground process group.
const (
	CtrlC         = "\x03" // INT
	CtrlZ         = "\x1a" // TSTP
	CtrlBackslash = "\x1c" // QUIT
)

// Terminal is a pseudoterminal. Programs are started on Slave.
type Terminal struct {
	Slave *os.File
	// Ended is closed once no process has the terminal open, or it was hung up, and all that was written to it has been read.
	Ended chan struct{}

	master *os.File
	mu     sync.Mutex
	seen   bytes.Buffer // output since the last Expect
}

// Open opens a terminal. Without echo only what programs write is seen. It is hung up at the end of the test.
func Open(t *testing.T, echo bool) *Terminal {
	t.Helper()
	p, err := open(echo)
	if err != nil {
		t.Fatalf("cannot open a terminal: %v", err)
	}
	t.Cleanup(func() {
		p.HangUp()
		p.Slave.Close()
		<-p.Ended
	})
	go p.read()
	return p
}

func open(echo bool) (*Terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	p := &Terminal{master: master, Ended: make(chan struct{})}
	err = p.control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err != nil {
			return err
		}
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		if !echo {
			mode.Lflag &^= unix.ECHO
		}
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, mode); err != nil {
			return err
		}
		slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		p.Slave = os.NewFile(uintptr(slave), "slave")
		return err
	})
	if err != nil {
		master.Close()
		return nil, err
	}
	return p, nil
}

// control calls do with the master's descriptor, which stays non-blocking.
func (p *Terminal) control(do func(fd int) error) error {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		return e
	}
	return err
}

// read keeps what is written to the terminal, until it is closed.
func (p *Terminal) read() {
	defer close(p.Ended)
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

// Start starts a command as a session leader with this controlling terminal, in its foreground. The caller waits for it.
func (p *Terminal) Start(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Slave, p.Slave, p.Slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return cmd.Start()
}

// Type types text, or a key.
func (p *Terminal) Type(text string) error {
	_, err := p.master.WriteString(text)
	return err
}

// Expect waits until text has been written to the terminal, discards everything up to its end, and returns what came before it. It
// blocks for at most two minutes.
func (p *Terminal) Expect(text string) (before string, err error) {
	err = eventually(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := strings.Index(p.seen.String(), text)
		if i < 0 {
			return fmt.Errorf("there is no %q on the terminal, but %q", text, p.seen.String())
		}
		before = string(p.seen.Next(i))
		p.seen.Next(len(text))
		return nil
	})
	return before, err
}

// Seen returns what was written since the last Expect.
func (p *Terminal) Seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// HangUp closes the terminal: the session leader gets HUP, and so does the foreground (tty_ioctl(4)).
func (p *Terminal) HangUp() { p.master.Close() }

// Foreground returns the foreground process group, as this process sees it.
func (p *Terminal) Foreground() (pgrp int, err error) {
	err = p.control(func(fd int) (err error) {
		pgrp, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return pgrp, err
}

// AwaitForeground waits until a program of this name leads the foreground group and is asleep, not stopped.
func (p *Terminal) AwaitForeground(comm string) error {
	return eventually(func() error {
		pgrp, err := p.Foreground()
		if err != nil {
			return err
		}
		if state, _ := processes.Stat(pgrp); processes.Name(pgrp) != comm || state != "S" {
			return fmt.Errorf("the foreground is %q, in state %q", processes.Name(pgrp), state)
		}
		return nil
	})
}

// Resize sets the size of the terminal.
func (p *Terminal) Resize(rows, columns uint16) error {
	return p.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

func eventually(try func() error) (err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}
