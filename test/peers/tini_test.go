package peers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/crankctl/crank/test/processes"
)

// tiniStories follow tini's test/run_inner_tests.py and ci/run_build.sh.
var tiniStories = slices.Concat(exitStories, reapingStories, inheritanceStories, commandLineStories)

var exitStories = []story{
	{
		name: "the app exits with 0 to 255",
		as:   asChild,
		want: everybody("its code"),
		run: func(r *run) (string, error) {
			return r.loop(`seq 0 255`, `"$@" -- sh -c "exit $n"; [ $? = $n ]`, "its code")
		},
	},
	{
		name:  "each code in turn is to count as 0",
		as:    asChild,
		flags: flags{crank: {"-ok-codes"}, tini: {"-e"}},
		want:  same("0", tini),
		run: func(r *run) (string, error) {
			return r.loop(`seq 0 255`, `"$@" $n -- sh -c "exit $n"`, "0")
		},
	},
	{
		name: "all codes but the app's are to count as 0",
		as:   asChild,
		want: same("its code", tini),
		run:  allCodesBut,
	},
	{
		name:  "143 is to count as 0, and TERM ends the app",
		flags: flags{crank: {"-ok-codes", "143"}, tini: {"-e", "143"}},
		want:  same("0", tini),
		run:   func(r *run) (string, error) { return r.killed(syscall.SIGTERM) },
	},
	{
		name: "the app is ended by signal n: each of 28",
		as:   asChild,
		want: everybody("128+n"),
		run: func(r *run) (string, error) {
			deadly := `echo 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 24 25 26 27 29 30 31 34 35 36 63 64`
			return r.loop(deadly, `ulimit -c 0; "$@" -- sh -c "kill -$n \$\$; sleep 1000"; [ $? = $((128 + n)) ]`, "128+n")
		},
	},
	{
		name: "HUP, INT, QUIT, USR1, USR2, TERM to the init end an app without handlers",
		want: everybody("129 130 131 138 140 143"),
		run: func(r *run) (string, error) {
			return r.killed(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM)
		},
	},
	{
		name: "signals 1 to 31 to the init, but for KILL, STOP and CHLD",
		as:   pid1,
		want: same("all but 13 23 27 reach the app").but("all but 4 to 8 11 21 22 31 reach the app", tini).
			but("all but 20 to 22 reach the app", dumbInit).but("all but 4 to 8 11 20 to 22 31 reach the app", catatonit),
		why: "PIPE, URG and PROF belong to crank's runtime; a fault signal sent by a process goes to the app",
		doc: docSignals,
		run: func(r *run) (string, error) { return r.forwarded(1, 31) },
	},
	{
		name: "real-time signals 34 to 64 to the init",
		as:   pid1,
		want: everybody("all reach the app").but("all but 34 reach the app", crank),
		why:  "the Go runtime has no handler for 34",
		doc:  docSignals,
		run:  func(r *run) (string, error) { return r.forwarded(34, 64) },
	},
	{
		name:  "USR1 to the group of an app that ignores it and waits for its child",
		flags: flags{crank: {"-group"}, tini: {"-g"}, catatonit: {"-g"}},
		want:  everybody("the child ends, then the app: 4"),
		run:   groupSignal,
	},
	{
		name: "the same, enabled by a variable",
		want: same("the child ends, then the app: 4", tini),
		run: func(r *run) (string, error) {
			r.spec.Env = []string{"PATH=/usr/bin:/bin", "TINI_KILL_PROCESS_GROUP=1", "CRANK_GROUP=true"}
			return groupSignal(r)
		},
	},
	{
		name:  "the parent dies, and a signal was requested (-p)",
		as:    asChild,
		flags: flags{tini: {"-p", "SIGUSR1"}},
		want:  same("nothing").but("the app gets it", tini),
		why:   "such a signal is per thread of the parent, and of no use to PID 1",
		doc:   docNot,
		run:   parentDies,
	},
}

var reapingStories = []story{
	{
		name: "orphans of a tree of shells",
		as:   pid1,
		want: everybody("reaped"),
		run:  treeOfOrphans,
	},
	{
		name: "the same below a subreaper",
		as:   asChild,
		want: same("reaped", tini, catatonit),
		run:  treeOfOrphans,
	},
	{
		name: "the same, without the option for a subreaper",
		as:   asChild,
		want: same("reaped").but("left to PID 1", tini, dumbInit),
		why:  "crank always becomes a subreaper",
		doc:  docInit,
		run: func(r *run) (string, error) {
			return r.orphans([]string{r.path, "--", "/bin/sh", "-c", orphanTree})
		},
	},
	{
		name: "2000 orphans at the same time, and the app's exit code",
		as:   pid1,
		want: everybody("7"),
		run: func(r *run) (string, error) {
			return r.exit(inside, "orphans", "2000", "500", "7")
		},
	},
	{
		name:  "a line for each reaped process (-w)",
		as:    pid1,
		flags: flags{tini: {"-w"}},
		want:  same("no line").but("a line for each", tini),
		why:   "crank counts them",
		doc:   docNot,
		run: func(r *run) (string, error) {
			p, err := r.start(inside, "orphans", "50", "10", "0")
			if err != nil {
				return "", err
			}
			if _, err := p.end(); err != nil {
				return "", err
			}
			return map[bool]string{true: "a line for each", false: "no line"}[strings.Count(p.stderr.String(), "eaped") >= 5], nil
		},
	},
}

// shell returns the command line of a script.
func shell(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", script, "sh"}, args...)
}

// exit runs an app to its end and returns the exit code.
func (r *run) exit(app ...string) (string, error) {
	p, err := r.start(app...)
	if err != nil {
		return "", err
	}
	return p.end()
}

// loop runs a script for each number n of a list, all in one namespace. The program's command line is "$@". The outcome is ok, or those
// numbers for which the script failed.
func (r *run) loop(numbers, script, ok string) (string, error) {
	p, err := r.execute(shell(`for n in $(`+numbers+`); do { `+script+`; } 2>/dev/null || echo $n; done; echo end`, r.command()...))
	if err != nil {
		return "", err
	}
	if _, err := p.end(); err != nil {
		return "", err
	}
	lines := p.rest()
	if len(lines) == 0 || lines[len(lines)-1] != "end" {
		return "", fmt.Errorf("the loop did not end: %q\n%s", lines, &p.stderr)
	}
	if failed := lines[:len(lines)-1]; len(failed) > 0 {
		return "not for " + strings.Join(failed, " "), nil
	}
	return ok, nil
}

func allCodesBut(r *run) (string, error) {
	for _, code := range []int{0, 1, 127, 128, 143, 255} {
		r.flags = nil
		for n := range 256 {
			if n != code && r.who == tini {
				r.flags = append(r.flags, "-e", fmt.Sprint(n))
			}
		}
		if r.who == crank {
			before, after := fmt.Sprintf("0-%d", code-1), fmt.Sprintf("%d-255", code+1)
			r.flags = []string{"-ok-codes", map[int]string{0: after, 255: before}[code]}
			if r.flags[1] == "" {
				r.flags[1] = before + "," + after
			}
		}
		if got, err := r.exit(shell("exit $1", fmt.Sprint(code))...); err != nil || got != fmt.Sprint(code) {
			return fmt.Sprintf("%s instead of %d", got, code), err
		}
	}
	return "its code", nil
}

// killed sends each signal to the program, whose app has no handler, and returns the exit codes.
func (r *run) killed(signals ...syscall.Signal) (string, error) {
	var codes []string
	for _, sig := range signals {
		p, err := r.start("/bin/sleep", "1000")
		if err != nil {
			return "", err
		}
		if _, err := p.app("sleep"); err != nil {
			return "", err
		}
		code, err := "", errors.Join(r.catches(p), p.send(sig))
		if err == nil {
			code, err = p.end()
		}
		if err != nil {
			return "", err
		}
		codes = append(codes, code)
	}
	return strings.Join(codes, " "), nil
}

// blocked starts an app that blocks all signals: what it gets stays pending. It was a Go program at first, which may have interrupted
// itself (URG); then this is done again.
func (r *run) blocked() (p *process, pid int, err error) {
	for range 20 {
		if p, err = r.start(inside, "blocked", "/bin/sleep", "1000"); err != nil {
			return nil, 0, err
		}
		if pid, err = p.app("sleep"); err != nil || pending(pid) == 0 {
			return p, pid, errors.Join(err, r.catches(p))
		}
		p.close()
	}
	return nil, 0, errors.New("the app has signals that nobody sent")
}

// forwarded sends a range of signals, and tells which of them did not reach the app. USR2, sent when the program has taken all others,
// is the last. CONT is sent to another app, because it discards pending stop signals (signal(7)).
func (r *run) forwarded(first, last syscall.Signal) (string, error) {
	if first <= syscall.SIGCONT && syscall.SIGCONT <= last {
		p, pid, err := r.blocked()
		if err == nil {
			err = errors.Join(p.send(syscall.SIGCONT), arrives(pid, syscall.SIGCONT))
		}
		if err != nil {
			return "", err
		}
	}
	p, pid, err := r.blocked()
	if err != nil {
		return "", err
	}
	signals := signalRange(first, last)
	var sent uint64
	for _, sig := range signals {
		sent |= bit(sig)
	}
	err = errors.Join(p.send(signals...), eventually(func() error {
		if left := pending(p.pid) & sent; left != 0 {
			return fmt.Errorf("the program has not taken %s", list(left))
		}
		return nil
	}))
	if err := errors.Join(err, p.send(syscall.SIGUSR2), arrives(pid, syscall.SIGUSR2)); err != nil {
		return "", err
	}
	return r.settle(func() string { return missing(sent &^ pending(pid)) }), nil
}

func missing(set uint64) string {
	if set == 0 {
		return "all reach the app"
	}
	return "all but " + list(set) + " reach the app"
}

// signalRange leaves out the signals that cannot be caught, CHLD, CONT and USR2.
func signalRange(first, last syscall.Signal) (signals []syscall.Signal) {
	for sig := first; sig <= last; sig++ {
		switch sig {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGUSR2:
		default:
			signals = append(signals, sig)
		}
	}
	return signals
}

// arrives waits until a process that blocks a signal has it.
func arrives(pid int, sig syscall.Signal) error {
	return eventually(func() error {
		if pending(pid)&bit(sig) == 0 {
			return fmt.Errorf("signal %d has not reached process %d, which has %s", sig, pid, list(pending(pid)))
		}
		return nil
	})
}

func groupSignal(r *run) (string, error) {
	p, err := r.start(shell(`sleep 1000 & trap "" USR1; echo ready; wait; exit 4`)...)
	if err != nil {
		return "", err
	}
	app, err := p.app("sh")
	if err == nil {
		_, err = onlyChild(app, "sleep")
	}
	if err := errors.Join(err, r.ready(p), p.send(syscall.SIGUSR1)); err != nil {
		return "", err
	}
	code, err := p.end()
	return "the child ends, then the app: " + code, err
}

// parentDies kills a shell whose child the program is. USR2 comes after whatever that leads to.
func parentDies(r *run) (string, error) {
	p, err := r.execute(shell(`sh -c '"$@" & wait' sh "$@" & wait; sleep 1000`, r.command(player, "signals")...))
	if err != nil {
		return "", err
	}
	if _, err := p.line("ready"); err != nil {
		return "", err
	}
	parent, err := onlyChild(p.pid, "sh")
	if err != nil {
		return "", err
	}
	program, err := onlyChild(parent, processes.Name(children(parent)[0]))
	if err != nil {
		return "", err
	}
	if err := errors.Join(r.catches(&process{pid: program}), syscall.Kill(parent, syscall.SIGKILL)); err != nil {
		return "", err
	}
	if err := eventually(func() error {
		if s, _ := processes.Stat(parent); s != "" { // once it is reaped, its children have been signalled
			return fmt.Errorf("the parent is in state %s", s)
		}
		return nil
	}); err != nil {
		return "", err
	}
	if err := syscall.Kill(program, syscall.SIGUSR2); err != nil {
		return "", err
	}
	if r.want == "the app gets it" {
		_, err = p.line("signal 10")
		return r.want, err
	}
	number, err := p.line("signal")
	return map[string]string{"10": "the app gets it", "12": "nothing"}[number], err
}

// orphanTree leaves processes whose parents are gone, three levels deep, and waits.
const orphanTree = `for n in 1 2 3 4 5; do ( ( (sh -c : &) & sh -c : & ) & ); done; echo done; read line`

func treeOfOrphans(r *run) (string, error) { return r.orphans(r.command("/bin/sh", "-c", orphanTree)) }

// orphans runs an app that leaves orphans, says "done" and waits for its stdin.
func (r *run) orphans(argv []string) (string, error) {
	in, hold, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer in.Close()
	defer hold.Close()
	r.stdin = in
	p, err := r.execute(argv)
	if err != nil {
		return "", err
	}
	if _, err := p.line("done"); err != nil {
		return "", err
	}
	return r.settle(func() string {
		own, above := len(children(p.pid)), 1
		if r.child {
			above = len(children(p.cmd.Process.Pid))
		}
		switch {
		case above > 1:
			return "left to PID 1"
		case own > 1:
			return fmt.Sprintf("%d not reaped", own-1)
		}
		return "reaped"
	}), nil
}
