package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/crankctl/crank/test/processes"
)

// received sends signals, waiting for what the app should get for each (0: nothing) before the next one, and returns what it got.
func (r *run) received(send, want []int) (string, error) {
	p, err := r.start(player, "signals")
	if err != nil {
		return "", err
	}
	if err := r.ready(p); err != nil {
		return "", err
	}
	var got []string
	for i, sig := range send {
		if err := p.send(syscall.Signal(sig)); err != nil {
			return "", err
		}
		if want[i] == 0 {
			continue
		}
		number, err := p.line("signal")
		if err != nil {
			return "", err
		}
		got = append(got, number)
	}
	return strings.Join(got, " "), nil
}

// overdue is an app that ignores TERM. The init's exit code is the outcome, or that the app still gets signals.
func overdue(r *run) (string, error) {
	p, err := r.start(player, "signals")
	if err != nil {
		return "", err
	}
	if err := errors.Join(r.ready(p), p.send(syscall.SIGTERM)); err != nil {
		return "", err
	}
	if _, err := p.line("signal 15"); err != nil {
		return "", err
	}
	if r.who == crank {
		return p.end()
	}
	if err := p.send(syscall.SIGUSR1); err != nil {
		return "", err
	}
	_, err = p.line("signal 10")
	return "it runs on", err
}

func state(pid int) string {
	s, _ := processes.Stat(pid)
	return s
}

// suspended sends a stop signal to the init, and then CONT.
func (r *run) suspended(sig syscall.Signal) (string, error) {
	p, err := r.start("/bin/sleep", "1000")
	if err != nil {
		return "", err
	}
	pid, err := p.app("sleep")
	if err := errors.Join(err, r.catches(p), p.send(sig)); err != nil {
		return "", err
	}
	stopped := r.settle(func() string {
		switch {
		case state(pid) != "T":
			return "nothing stops"
		case state(p.pid) == "T":
			return "both stop, and go on"
		}
		return "the app stops, and goes on"
	})
	if err := p.send(syscall.SIGCONT); err != nil {
		return "", err
	}
	return stopped, eventually(func() error {
		if state(pid) != "S" || state(p.pid) != "S" {
			return fmt.Errorf("after CONT the app is %s, the init %s", state(pid), state(p.pid))
		}
		return nil
	})
}

// stopsItself sends TSTP, and sees whether the init stops or passes on what comes next.
func stopsItself(r *run) (string, error) {
	p, err := r.start(player, "signals")
	if err != nil {
		return "", err
	}
	if err := errors.Join(r.ready(p), p.send(syscall.SIGTSTP)); err != nil {
		return "", err
	}
	got, err := p.line("signal")
	if err := errors.Join(err, p.send(syscall.SIGUSR1)); err != nil {
		return "", err
	}
	outcome := "the app gets " + got
	err = eventually(func() error {
		if state(p.pid) == "T" {
			outcome += ", and the init stops"
			return nil
		}
		select {
		case <-p.lines: // USR1
			return nil
		default:
			return errors.New("the init has not stopped, and does not forward signals")
		}
	})
	return outcome, err
}

func stoppedAndContinued(r *run) (string, error) {
	p, err := r.start(player, "signals")
	if err != nil {
		return "", err
	}
	err = r.ready(p)
	pid, err2 := p.app("player")
	if err := errors.Join(err, err2, syscall.Kill(pid, syscall.SIGSTOP), eventually(func() error {
		if state(pid) != "T" {
			return fmt.Errorf("the app is in state %s", state(pid))
		}
		return nil
	}), syscall.Kill(pid, syscall.SIGCONT)); err != nil {
		return "", err
	}
	first, err := p.line("signal")
	if err := errors.Join(err, p.send(syscall.SIGUSR1)); err != nil {
		return "", err
	}
	second, err := p.line("signal")
	if first != "18" || second != "10" {
		return "the app gets " + first + " " + second, err
	}
	return "nothing else happens", err
}

// pair sends USR1, and then USR2, to an app with a child; both block all signals.
func (r *run) pair() (string, error) {
	p, err := r.start(inside, "blocked", "/bin/sh", "-c", "sleep 1000 & wait")
	if err != nil {
		return "", err
	}
	main, err := p.app("sh")
	if err != nil {
		return "", err
	}
	child, err := onlyChild(main, "sleep")
	if err := errors.Join(err, r.catches(p), p.send(syscall.SIGUSR1), arrives(main, syscall.SIGUSR1),
		p.send(syscall.SIGUSR2), arrives(main, syscall.SIGUSR2)); err != nil {
		return "", err
	}
	if pending(child)&bit(syscall.SIGUSR1) != 0 {
		return "its child gets it too", nil
	}
	return "its child does not get it", nil
}

// below starts the program below a shell that goes on when the program has ended: it then prints "code N".
func (r *run) below(app ...string) (p *process, err error) {
	in, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.stdin = in
	r.ending = append(r.ending, func() { in.Close(); hold.Close() })
	return r.execute(shell(`exec 4<&0; "$@" </dev/null; echo code $?; read line <&4`, r.command(app...)...))
}

// leftovers returns the live processes that the program left, of a shell that below started.
func (p *process) leftovers() (pids []int) {
	for _, pid := range append(children(p.cmd.Process.Pid), children(p.pid)...) {
		if s := state(pid); pid != p.pid && s != "Z" && s != "" {
			pids = append(pids, pid)
		}
	}
	return pids
}

func pipeline(r *run) (string, error) {
	p, err := r.below(shell("sleep 1000 | sleep 1001 & echo ready; wait")...)
	if err != nil {
		return "", err
	}
	if _, err := p.line("ready"); err != nil {
		return "", err
	}
	program := &process{pid: children(p.pid)[0]}
	main, err := program.app("sh")
	err = errors.Join(err, r.catches(program), eventually(func() error {
		sleeps := slices.DeleteFunc(children(main), func(pid int) bool { return processes.Name(pid) != "sleep" })
		if len(sleeps) != 2 {
			return fmt.Errorf("the app has the children %v", children(main))
		}
		return nil
	}), program.send(syscall.SIGTERM))
	if err != nil {
		return "", err
	}
	if _, err := p.line("code"); err != nil {
		return "", err
	}
	return r.settle(func() string {
		if n := len(p.leftovers()); n > 0 {
			return fmt.Sprint(n, " processes are left")
		}
		return "nothing is left"
	}), nil
}

// left is an app that exits and leaves a process, which prints what it gets. USR1 is sent to it once the init has ended.
func (r *run) left(how string) (string, error) {
	p, err := r.below(inside, "leave", "3", how)
	if err != nil {
		return "", err
	}
	const got = "left behind got"
	for line := ""; !strings.HasPrefix(line, "code"); {
		if line, err = p.line(""); err != nil {
			return "", err
		}
		if line == got+" 15" {
			return "it gets TERM", nil
		}
	}
	if r.want == "nothing" {
		left := p.leftovers()
		if len(left) != 1 {
			return fmt.Sprint("it leaves ", left), nil
		}
		if err := syscall.Kill(left[0], syscall.SIGUSR1); err != nil {
			return "", err
		}
	}
	number, err := p.line(got)
	return map[string]string{"10": "nothing", "15": "it gets TERM"}[number], err
}

// stat returns the process group and the session of a process (proc_pid_stat(5)).
func stat(pid int) (group, session string) {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(text), ") ")
	if f := strings.Fields(rest); len(f) > 3 {
		return f[2], f[3]
	}
	return "", ""
}

func session(r *run) (string, error) {
	p, err := r.start("/bin/sleep", "1000")
	if err != nil {
		return "", err
	}
	pid, err := p.app("sleep")
	group, own := stat(pid)
	_, inits := stat(p.pid)
	switch {
	case own == strconv.Itoa(pid):
		return "its own", err
	case own == inits && group == strconv.Itoa(pid):
		return "the init's; it leads a group", err
	}
	return "the init's", err
}

func directories(r *run) (string, error) {
	p, err := r.start("/bin/sleep", "1000")
	if err != nil {
		return "", err
	}
	pid, err := p.app("sleep")
	if err != nil {
		return "", err
	}
	where := func(pid int) string {
		dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if dir == r.dir {
			return "kept"
		}
		return dir
	}
	return r.settle(func() string { return fmt.Sprintf("the app's is %s, the init's is %s", where(pid), where(p.pid)) }), nil
}

// quits sends QUIT. crank must still be ready then: once it stops, it is not.
func quits(r *run) (string, error) {
	ctl := filepath.Join(r.dir, "ctl")
	if r.who == crank {
		r.flags = append(slices.Clone(r.flags), "-ctl", ctl)
	}
	p, err := r.start(player, "signals")
	if err == nil {
		err = errors.Join(r.ready(p), p.send(syscall.SIGQUIT))
	}
	if err == nil {
		_, err = p.line("signal 3")
	}
	if err == nil && r.who == crank {
		cmd := exec.Command(filepath.Join(bin, "crankctl"), "-ctl", ctl, "ready")
		if out, _ := cmd.CombinedOutput(); !cmd.ProcessState.Success() {
			return "crank stops: " + strings.TrimSpace(string(out)), nil
		}
	}
	return "nothing else happens", err
}
