package pid1

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/terminal"
)

// signalling: what is sent to the init is meant for the app.
var signalling = []behaviour{
	{name: "55 signals reach the app: all but KILL, STOP, CHLD, 32, 33 and those of the next row", check: func(p *program, _ []string) error {
		return everySignal(p)
	}},
	{name: "PIPE, URG, PROF and 34 (RTMIN) reach the app too", check: func(p *program, _ []string) error {
		if p.ours() {
			return errors.New("it keeps them, see TestKept")
		}
		return reaches(p, nil, []syscall.Signal{syscall.SIGPIPE, syscall.SIGURG, syscall.SIGPROF, 34}, 0)
	}, lacks: "PIPE comes of a closed stdout, URG is how Go preempts goroutines, PROF is its profiler's, 34 the runtime's"},
	{name: "signals can be rewritten and dropped", needs: optRewrite, check: func(p *program, flags []string) error {
		if err := reaches(p, flags, []syscall.Signal{syscall.SIGUSR1}, bit(syscall.SIGUSR2)); err != nil {
			return err
		}
		return staysAway(p, flags, syscall.SIGWINCH)
	}},
	{name: "the process group can be signalled", needs: optGroup, check: func(p *program, flags []string) error {
		return groupSignalled(p, flags, true)
	}},
	{name: "the main process alone can be signalled", needs: optMain, check: func(p *program, flags []string) error {
		return groupSignalled(p, flags, false)
	}},
	{name: "TERM, INT, QUIT, HUP end an app without handlers, with 128+n", check: func(p *program, _ []string) error {
		return endedBy(p, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP)
	}},
	{name: "STOPSIGNAL of other images (USR1, WINCH, QUIT, RTMIN+3): the app sees it, its code is kept", check: func(p *program, _ []string) error {
		return stoppedBy(p, syscall.SIGUSR1, syscall.SIGWINCH, syscall.SIGQUIT, 37)
	}},
	{name: "a STOPSIGNAL can be rewritten into TERM", needs: optStopBy, check: func(p *program, flags []string) error {
		return inContainer(p, options{}, flags, app("count"), func(c *container) error {
			if _, err := c.expect("ready"); err != nil {
				return err
			}
			if err := c.signal(syscall.SIGUSR1); err != nil {
				return err
			}
			return c.ends(0) // count exits with 0 only after TERM
		})
	}},
	{name: "a burst of 10,000 signals leaves the app running and stoppable", check: burst},
	{name: "an app that was stopped (SIGSTOP) and continued has not ended", check: stoppedAndContinued},
}

// inBlocked lets check look at an app that blocks every signal, so that what it gets stays pending. The
// program that becomes the app is a Go program at first, and may have got an URG from its own runtime:
// then this is done again.
func inBlocked(p *program, flags []string, check func(c *container, pid int) error) error {
	for range 20 {
		clean := true
		err := inContainer(p, options{}, flags, app("blocked", "/bin/sleep", "1000"), func(c *container) error {
			pid, err := c.app("sleep")
			if err != nil {
				return err
			}
			if clean = pending(pid) == 0; !clean {
				return nil
			}
			return check(c, pid)
		})
		if clean || err != nil {
			return err
		}
	}
	return errors.New("the app has signals that nobody sent")
}

// reaches sends signals and waits until the app has them all (also: the one that is wanted instead).
func reaches(p *program, flags []string, signals []syscall.Signal, want uint64) error {
	if want == 0 {
		for _, sig := range signals {
			want |= bit(sig)
		}
	}
	return inBlocked(p, flags, func(c *container, pid int) error {
		if err := c.catchesAll(p); err != nil {
			return err
		}
		for _, sig := range signals {
			if err := c.signal(sig); err != nil {
				return fmt.Errorf("signal %d: %w", sig, err)
			}
		}
		limit := time.Now().Add(patience)
		if !p.ours() {
			limit = time.Now().Add(time.Second) // what a peer does not forward never comes
		}
		for pending(pid)&want != want {
			if time.Now().After(limit) {
				return fmt.Errorf("these signals did not reach the app: %s", names(want&^pending(pid)))
			}
			time.Sleep(time.Millisecond)
		}
		if more := pending(pid) &^ want; more != 0 {
			return fmt.Errorf("the app also got %s", names(more))
		}
		return nil
	})
}

// catchesAll waits until crank has come to ask for the last signal; those that nobody sends in the first milliseconds it
// asks for when the app has been started (docs/pid1.md, "The first moments").
func (c *container) catchesAll(p *program) error {
	if !p.ours() {
		return nil
	}
	return eventually(func() error {
		if caught, _ := strconv.ParseUint(statusOf(c.pid, "SigCgt"), 16, 64); caught&bit(64) == 0 {
			return fmt.Errorf("crank catches %s", names(caught))
		}
		return nil
	})
}

// everySignal sends CONT apart: the kernel drops pending stop signals for it, and it for them (signal(7)).
func everySignal(p *program) error {
	if err := reaches(p, nil, []syscall.Signal{syscall.SIGCONT}, 0); err != nil {
		return err
	}
	return reaches(p, nil, slices.DeleteFunc(forwarded(), func(sig syscall.Signal) bool { return sig == syscall.SIGCONT }), 0)
}

// staysAway sends signals and then USR2: when that has reached the app, the others have not.
func staysAway(p *program, flags []string, signals ...syscall.Signal) error {
	return inBlocked(p, flags, func(c *container, pid int) error {
		for _, sig := range append(signals, syscall.SIGUSR2) {
			if err := c.signal(sig); err != nil {
				return fmt.Errorf("signal %d: %w", sig, err)
			}
		}
		if err := eventually(func() error {
			if pending(pid)&bit(syscall.SIGUSR2) == 0 {
				return fmt.Errorf("USR2 did not reach the app\n%s", &c.stderr)
			}
			return nil
		}); err != nil {
			return err
		}
		if more := pending(pid) &^ bit(syscall.SIGUSR2); more != 0 {
			return fmt.Errorf("the app got %s", names(more))
		}
		return nil
	})
}

// groupSignalled looks at the app and a child of its in the same process group.
func groupSignalled(p *program, flags []string, both bool) error {
	script := `sleep 1000 & echo child; wait`
	return inContainer(p, options{}, flags, app("blocked", "/bin/sh", "-c", script), func(c *container) error {
		if _, err := c.expect("child"); err != nil {
			return err
		}
		main, err := c.app("sh")
		if err != nil {
			return err
		}
		var child int
		if err := eventually(func() error {
			children := childrenOf(main)
			if len(children) != 1 || statusOf(children[0].pid, "Name") != "sleep" {
				return fmt.Errorf("the app has the children %v", children)
			}
			child = children[0].pid
			return nil
		}); err != nil {
			return err
		}
		if err := c.signal(syscall.SIGUSR1); err != nil {
			return err
		}
		usr1 := bit(syscall.SIGUSR1)
		err = eventually(func() error {
			if pending(main)&usr1 == 0 || both && pending(child)&usr1 == 0 {
				return fmt.Errorf("the app got %q, its child %q", names(pending(main)), names(pending(child)))
			}
			return nil
		})
		if err == nil && !both && pending(child)&usr1 != 0 {
			err = fmt.Errorf("the app's child got %q", names(pending(child)))
		}
		return err
	})
}

func endedBy(p *program, signals ...syscall.Signal) error {
	for _, sig := range signals {
		err := inContainer(p, options{}, nil, []string{"/bin/sleep", "1000"}, func(c *container) error {
			if _, err := c.app("sleep"); err != nil {
				return err
			}
			if err := c.signal(sig); err != nil {
				return err
			}
			return c.ends(128 + int(sig))
		})
		if err != nil {
			return fmt.Errorf("signal %d: %w", sig, err)
		}
	}
	return nil
}

// stoppedBy is an app that ends in its own way on the signal of its image.
func stoppedBy(p *program, signals ...syscall.Signal) error {
	for _, sig := range signals {
		script := fmt.Sprintf(`trap 'exit 5' %d; echo ready; while :; do sleep 0.05; done`, sig)
		err := inContainer(p, options{}, nil, []string{"/bin/sh", "-c", script}, func(c *container) error {
			if _, err := c.expect("ready"); err != nil {
				return err
			}
			if err := c.signal(sig); err != nil {
				return err
			}
			return c.ends(5)
		})
		if err != nil {
			return fmt.Errorf("signal %d: %w", sig, err)
		}
	}
	return nil
}

func burst(p *program, _ []string) error {
	return inContainer(p, options{}, nil, app("count"), func(c *container) error {
		if _, err := c.expect("ready"); err != nil {
			return err
		}
		if err := c.catchesAll(p); err != nil {
			return err
		}
		many := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGALRM, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, 40, 64}
		for n := range 10_000 {
			if err := c.signal(many[n%len(many)]); err != nil {
				return err
			}
		}
		for _, sig := range []syscall.Signal{syscall.SIGIO, syscall.SIGTERM} { // one that was not in the burst
			if err := c.signal(sig); err != nil {
				return err
			}
			if _, err := c.expect("signal " + strconv.Itoa(int(sig))); err != nil {
				return err
			}
		}
		return c.ends(0)
	})
}

func stoppedAndContinued(p *program, _ []string) error {
	return inContainer(p, options{}, nil, app("count"), func(c *container) error {
		if _, err := c.expect("ready"); err != nil {
			return err
		}
		pid, err := c.app("inside")
		if err != nil {
			return err
		}
		for range 3 {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				return err
			}
			if err := eventually(func() error {
				if state := statusOf(pid, "State"); !strings.HasPrefix(state, "T") {
					return fmt.Errorf("the app is %q", state)
				}
				return nil
			}); err != nil {
				return err
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				return err
			}
			if _, err := c.expect("signal 18"); err != nil {
				return err
			}
		}
		if err := c.signal(syscall.SIGTERM); err != nil {
			return err
		}
		return c.ends(0)
	})
}

// ourModes runs check for crank as PID 1 and as a subreaper.
func ourModes(t *testing.T, check func(t *testing.T, p *program)) {
	for _, p := range inits[:2] {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			check(t, p)
		})
	}
}

// TestKept: what crank keeps to itself does nothing to it, nor to the app. 32 to 34 have no handler
// in a Go program, so that they end a crank that is not PID 1.
func TestKept(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		var signals []syscall.Signal
		for sig := range kept {
			if sig != syscall.SIGKILL && sig != syscall.SIGSTOP && (sig < 32 || !p.subreaper) {
				signals = append(signals, sig)
			}
		}
		must(t, staysAway(p, nil, signals...))
	})
}

// TestHUP: without a socket HUP is the app's; with -hup it is what was asked for.
func TestHUP(t *testing.T) {
	hup := []syscall.Signal{syscall.SIGHUP}
	ourModes(t, func(t *testing.T, p *program) {
		for _, flags := range [][]string{nil, {"-hup", "forward"}, {"-hup", "forward", "-bind", "127.0.0.1:0", "-ready", "none"}} {
			if err := reaches(p, flags, hup, 0); err != nil {
				t.Errorf("%q: %v", flags, err)
			}
		}
		for _, flags := range [][]string{{"-hup", "ignore"}, {"-rewrite", "HUP:0"}} {
			if err := staysAway(p, flags, hup...); err != nil {
				t.Errorf("%q: %v", flags, err)
			}
		}
		for _, flags := range [][]string{{"-hup", "swap"}, {"-bind", "127.0.0.1:0", "-ready", "none", "-settle", "0"}} {
			must(t, inContainer(p, options{}, flags, app("count"), func(c *container) error {
				first, err := c.expect("ready")
				if err != nil {
					return err
				}
				if err := c.signal(syscall.SIGHUP); err != nil {
					return err
				}
				second, err := c.expect("ready")
				if err == nil && first == second {
					err = fmt.Errorf("the app is still %s", first)
				}
				if err != nil {
					return err
				}
				if err := c.signal(syscall.SIGTERM); err != nil {
					return err
				}
				return c.ends(0)
			}))
		}
	})
}

// TestStopSignal: the app is asked to stop in the way that it expects.
func TestStopSignal(t *testing.T) {
	tests := []struct {
		flags []string
		send  syscall.Signal
		want  syscall.Signal
	}{
		{nil, syscall.SIGTERM, syscall.SIGTERM},
		{nil, syscall.SIGINT, syscall.SIGINT},
		{nil, syscall.SIGQUIT, syscall.SIGQUIT},
		{[]string{"-stop-signal", "QUIT"}, syscall.SIGTERM, syscall.SIGQUIT},
		{[]string{"-stop-signal", "USR1"}, syscall.SIGTERM, syscall.SIGUSR1},
		{[]string{"-stop-signal", "WINCH"}, syscall.SIGTERM, syscall.SIGWINCH},
		{[]string{"-stop-signal", "RTMIN+3"}, syscall.SIGTERM, 37},
		{[]string{"-rewrite", "USR1:TERM"}, syscall.SIGUSR1, syscall.SIGTERM},
		{[]string{"-rewrite", "TERM:QUIT"}, syscall.SIGTERM, syscall.SIGQUIT},
		{[]string{"-rewrite", "WINCH:TERM", "-stop-signal", "WINCH"}, syscall.SIGWINCH, syscall.SIGWINCH},
	}
	ourModes(t, func(t *testing.T, p *program) {
		for _, tt := range tests {
			if err := reaches(p, tt.flags, []syscall.Signal{tt.send}, bit(tt.want)); err != nil {
				t.Errorf("%q, %d: %v", tt.flags, tt.send, err)
			}
		}
	})
}

// TestStopOn: only the signals in -stop-on stop crank. The others go to the app, and crank keeps running.
func TestStopOn(t *testing.T) {
	type test struct {
		flags []string
		send  syscall.Signal
		want  syscall.Signal
	}
	ourModes(t, func(t *testing.T, p *program) {
		for _, tt := range []test{
			{[]string{"-stop-on", "TERM,INT"}, syscall.SIGQUIT, syscall.SIGQUIT},
			{[]string{"-stop-on", "SIGTERM, quit"}, syscall.SIGINT, syscall.SIGINT},
			{[]string{"-stop-on", "PWR"}, syscall.SIGQUIT, syscall.SIGQUIT},
			{[]string{"-stop-on", "none"}, syscall.SIGINT, syscall.SIGINT},
			{[]string{"-stop-on", "TERM", "-rewrite", "USR1:QUIT"}, syscall.SIGUSR1, syscall.SIGQUIT},
			{[]string{"-profile", "java", "-stdin-socket=false", "-ready", "none"}, syscall.SIGQUIT, syscall.SIGQUIT},
		} {
			flags := append(tt.flags, "-hup", "swap", "-settle", "0")
			must(t, inContainer(p, options{}, flags, app("count"), func(c *container) error {
				return goesOn(c, tt.send, tt.want)
			}))
		}
		for _, tt := range []test{
			{[]string{"-stop-on", "TERM,INT"}, syscall.SIGINT, syscall.SIGINT},
			{[]string{"-stop-on", "PWR"}, syscall.SIGPWR, syscall.SIGPWR},
			{[]string{"-stop-on", "RTMIN+3"}, 37, 37},
			{[]string{"-stop-on", "USR1", "-stop-signal", "QUIT"}, syscall.SIGUSR1, syscall.SIGQUIT},
			{[]string{"-stop-on", "INT", "-rewrite", "QUIT:INT"}, syscall.SIGQUIT, syscall.SIGINT},
		} {
			must(t, inContainer(p, options{}, append(tt.flags, "-stop", "500ms"), app("count"), func(c *container) error {
				if _, err := c.expect("ready"); err != nil {
					return err
				}
				if err := c.catchesAll(p); err != nil {
					return err
				}
				if err := c.signal(tt.send); err != nil {
					return err
				}
				if _, err := c.expect(fmt.Sprintf("signal %d", tt.want)); err != nil {
					return err
				}
				return c.ends(128 + int(syscall.SIGKILL)) // it does not stop the app
			}))
		}
	})
}

// TestInterrupts: on a terminal three INT kill the app, unless INT is not in -stop-on.
func TestInterrupts(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		tty := terminal.Open(t, false)
		must(t, inContainer(p, options{tty: tty.Slave}, []string{"-stop-on", "TERM", "-hup", "swap", "-settle", "0"}, app("count"), func(c *container) error {
			return goesOn(c, syscall.SIGINT, syscall.SIGINT)
		}))
	})
}

// goesOn sends a signal three times. It must reach the app without stopping crank, which must still swap.
func goesOn(c *container, send, want syscall.Signal) error {
	if _, err := c.expect("ready"); err != nil {
		return err
	}
	for range 3 {
		if err := c.signal(send); err != nil {
			return err
		}
		if _, err := c.expect(fmt.Sprintf("signal %d", want)); err != nil {
			return err
		}
	}
	if err := c.signal(syscall.SIGHUP); err != nil {
		return err
	}
	if _, err := c.expect("ready"); err != nil {
		return err
	}
	return nil
}

// TestHeld: a signal that comes before there is an app gets to the one that comes. It ends of it,
// since it has no handler.
func TestHeld(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		ctl := filepath.Join(t.TempDir(), "ctl")
		c, err := start(p, options{}, []string{"-ctl", ctl, "-conf", "off"})
		must(t, err)
		defer c.close()
		must(t, eventually(func() error { // from then on nothing can be lost
			return exec.Command(filepath.Join(bin, "crankctl"), "-ctl", ctl, "info").Run()
		}))
		must(t, c.signal(syscall.SIGUSR1))
		must(t, caught(c, syscall.SIGUSR1))
		// No other app may get it: this one is the first.
		out, err := exec.Command(filepath.Join(bin, "crankctl"), "-ctl", ctl, "run", "--", "/bin/sleep", "1000").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		must(t, c.ends(128+int(syscall.SIGUSR1)))
	})
}

// caught waits until crank has taken a signal from the kernel.
func caught(c *container, sig syscall.Signal) error {
	return eventually(func() error {
		if pending(c.pid)&bit(sig) != 0 {
			return fmt.Errorf("signal %d is still pending", sig)
		}
		return nil
	})
}
