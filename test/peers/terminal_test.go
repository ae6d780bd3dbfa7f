package peers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/terminal"
)

// terminalStories follow dumb-init's tty_test.py and shell_background_test.py, and go on with what a user does at a terminal.
var terminalStories = []story{
	{
		name: "a filter (tac) reads three lines and writes them",
		tty:  true,
		want: everybody("3 2 1, and exits with 0"),
		run:  filter,
	},
	{
		name: "which process has the terminal",
		tty:  true, as: pid1,
		want: everybody("the app's"),
		run: func(r *run) (string, error) {
			_, err := r.start("/bin/sleep", "1000")
			return "the app's", errors.Join(err, r.tty.AwaitForeground("sleep"))
		},
	},
	{
		name: "the app starts",
		tty:  true, as: pid1,
		want: everybody("no signal"),
		run:  func(r *run) (string, error) { return r.counted("") },
	},
	{
		name: "Ctrl-C",
		tty:  true, as: pid1,
		want: everybody("INT, once"),
		run:  func(r *run) (string, error) { return r.counted(terminal.CtrlC) },
	},
	{
		name: `Ctrl-\`,
		tty:  true, as: pid1,
		want: everybody("QUIT, once"),
		run:  func(r *run) (string, error) { return r.counted(terminal.CtrlBackslash) },
	},
	{
		name: "Ctrl-Z",
		tty:  true, as: pid1,
		want: everybody("TSTP, once"),
		run:  func(r *run) (string, error) { return r.counted(terminal.CtrlZ) },
	},
	{
		name: "the window changes its size",
		tty:  true, as: pid1,
		want: everybody("WINCH, once"),
		run:  func(r *run) (string, error) { return r.counted("resize") },
	},
	{
		name: "the terminal is hung up, and the app has no handler",
		tty:  true, as: pid1,
		want: everybody("129"),
		run: func(r *run) (string, error) {
			p, err := r.start("/bin/sleep", "1000")
			if err == nil {
				err = r.tty.AwaitForeground("sleep")
			}
			if err != nil {
				return "", err
			}
			r.tty.HangUp()
			return p.end()
		},
	},
	{
		name: "the terminal is hung up, and the app ignores that",
		tty:  true, as: pid1,
		flags: flags{crank: {"-stop", "100ms"}},
		want:  everybody("it runs on").but("it is killed at the deadline", crank),
		why:   "a hang-up is a stop",
		doc:   docInit,
		run:   hangUpIgnored,
	},

	{
		name: "an interactive bash",
		tty:  true, as: pid1,
		want: everybody("has job control"),
		run: func(r *run) (string, error) {
			return r.bash(func(b *shellOnTerminal) string {
				return map[bool]string{true: "has job control", false: "has none"}[strings.Contains(b.answer("$-"), "m")]
			})
		},
	},
	{
		name: "Ctrl-C in that bash, with a job in the foreground",
		tty:  true, as: pid1,
		want: everybody("ends the job: 130"),
		run: func(r *run) (string, error) {
			return r.bash(func(b *shellOnTerminal) string {
				b.job("sleep 1000", terminal.CtrlC)
				return "ends the job: " + b.answer("$?")
			})
		},
	},
	{
		name: `Ctrl-\ in that bash, with a job in the foreground`,
		tty:  true, as: pid1,
		want: everybody("ends the job: 131"),
		run: func(r *run) (string, error) {
			return r.bash(func(b *shellOnTerminal) string {
				b.job("ulimit -c 0; sleep 1000", terminal.CtrlBackslash)
				return "ends the job: " + b.answer("$?")
			})
		},
	},
	// Not catatonit: its app finds TSTP blocked, and so does what a shell starts.
	{
		name: "Ctrl-Z in that bash, fg, Ctrl-C",
		tty:  true, as: pid1,
		want: same("the job stops, goes on, and ends: 148 130", tini, dumbInit),
		run: func(r *run) (string, error) {
			return r.bash(func(b *shellOnTerminal) string {
				b.job("sleep 1000", terminal.CtrlZ)
				stopped := b.answer("$?")
				b.job("fg", terminal.CtrlC)
				return "the job stops, goes on, and ends: " + stopped + " " + b.answer("$?")
			})
		},
	},
	{
		name: "a job in the background of that bash, and Ctrl-C for another one",
		tty:  true, as: pid1,
		want: everybody("it runs on: 1 job"),
		run: func(r *run) (string, error) {
			return r.bash(func(b *shellOnTerminal) string {
				b.line("/bin/tail -f /dev/null &")
				b.job("sleep 1000", terminal.CtrlC)
				return "it runs on: " + b.answer("$(jobs -r | wc -l) job")
			})
		},
	},
	{
		name: "a job in the background of that bash, and wait",
		tty:  true, as: pid1,
		want: everybody("ends with 5"),
		run: func(r *run) (string, error) {
			return r.bash(func(b *shellOnTerminal) string {
				b.line("(exit 5) & wait $!")
				return "ends with " + b.answer("$?")
			})
		},
	},

	{
		name: "a shell starts the init, and Ctrl-Z",
		tty:  true, as: asChild,
		want: same("the app stops, the shell waits", tini).but("the shell has its prompt", dumbInit),
		why:  "the app has the terminal; in a container there is no such shell",
		doc:  docNot,
		run:  func(r *run) (string, error) { return r.startedByShell("", suspendedByKey) },
	},
	{
		name: "a shell starts the init in the background",
		tty:  true, as: asChild,
		want: same("the shell keeps the terminal", dumbInit).but("the shell loses the terminal", tini, catatonit),
		why:  "crank hands the terminal over only if it has it",
		doc:  docInit,
		run:  func(r *run) (string, error) { return r.startedByShell(" &", keepsTerminal) },
	},
}

func filter(r *run) (string, error) {
	p, err := r.start("/usr/bin/tac")
	if err := errors.Join(err, r.tty.AwaitForeground("tac"), r.tty.Type("1\n2\n3\n\x04\x04")); err != nil {
		return "", err
	}
	var got []string
	for range 3 {
		line, err := r.tty.Expect("\r\n")
		if err != nil {
			return "", err
		}
		got = append(got, line)
	}
	code, err := p.end()
	return strings.Join(got, " ") + ", and exits with " + code, err
}

// counted presses a key, or changes the size, and counts the signals that the app gets before the next one.
func (r *run) counted(key string) (string, error) {
	p, err := r.start(player, "signals")
	if err != nil {
		return "", err
	}
	if _, err := r.tty.Expect("ready"); err != nil {
		return "", err
	}
	if err := errors.Join(r.catches(p), r.tty.AwaitForeground("player")); err != nil {
		return "", err
	}
	name, number := "", ""
	switch key {
	case "":
	case "resize":
		name, number = "WINCH", "28"
		err = r.tty.Resize(50, 100)
	default:
		i := slices.Index([]string{terminal.CtrlC, terminal.CtrlBackslash, terminal.CtrlZ}, key)
		name, number = []string{"INT", "QUIT", "TSTP"}[i], []string{"2", "3", "20"}[i]
		err = r.tty.Type(key)
	}
	if err != nil {
		return "", err
	}
	if number != "" {
		if _, err := r.tty.Expect("signal " + number + "\r\n"); err != nil {
			return "", err
		}
	}
	if err := p.send(syscall.SIGUSR1); err != nil {
		return "", err
	}
	before, err := r.tty.Expect("signal 10")
	switch {
	case strings.Contains(before, "signal"):
		return fmt.Sprintf("more: %q", before), err
	case name == "":
		return "no signal", err
	}
	return name + ", once", err
}

func hangUpIgnored(r *run) (string, error) {
	p, err := r.start("/bin/sh", "-c", `trap "" HUP; exec sleep 1000`)
	if err == nil {
		err = r.tty.AwaitForeground("sleep")
	}
	if err != nil {
		return "", err
	}
	r.tty.HangUp()
	if r.who != crank {
		err = p.send(syscall.SIGUSR1) // after HUP
	}
	code, err2 := p.end()
	outcome := map[string]string{"138": "it runs on", "137": "it is killed at the deadline"}[code]
	return outcome, errors.Join(err, err2)
}

// shellOnTerminal is an interactive bash. After the first error nothing more is typed.
type shellOnTerminal struct {
	tty *terminal.Terminal
	err error
}

var interactive = []string{"/bin/bash", "--norc", "--noprofile", "--noediting", "-i"}

// bash starts one as the app, and returns what talk finds.
func (r *run) bash(talk func(*shellOnTerminal) string) (string, error) {
	if _, err := r.start(interactive...); err != nil {
		return "", err
	}
	b := &shellOnTerminal{tty: r.tty, err: r.tty.AwaitForeground("bash")}
	b.line("PS1=")
	found := talk(b)
	return found, b.err
}

// line types a line.
func (b *shellOnTerminal) line(text string) {
	if b.err == nil {
		b.err = b.tty.Type(text + "\n")
	}
}

// answer returns what a word expands to.
func (b *shellOnTerminal) answer(word string) (text string) {
	b.line(`echo "<""` + word + `"">"`)
	for _, end := range []string{"<", ">"} {
		if b.err == nil {
			text, b.err = b.tty.Expect(end)
		}
	}
	return text
}

// job starts sleep in the foreground and presses a key; then bash has the terminal again.
func (b *shellOnTerminal) job(line, key string) {
	b.line(line)
	if b.err == nil {
		b.err = errors.Join(b.tty.AwaitForeground("sleep"), b.tty.Type(key), b.tty.AwaitForeground("bash"))
	}
}

// startedByShell has an interactive bash start the program, whose app is sleep, and returns what look finds.
func (r *run) startedByShell(how string, look func(r *run, init, app int) (string, error)) (string, error) {
	p, err := r.execute(interactive)
	if err != nil {
		return "", err
	}
	b := &shellOnTerminal{tty: r.tty, err: r.tty.AwaitForeground("bash")}
	b.line("PS1='>'")
	b.line(strings.Join(r.command("/bin/sleep", "1000"), " ") + how)
	if b.err != nil {
		return "", b.err
	}
	var init, app int
	err = eventually(func() error {
		for _, init = range children(p.pid) {
			if sleeps := children(init); len(sleeps) == 1 && processes.Name(sleeps[0]) == "sleep" {
				app = sleeps[0]
				return nil
			}
		}
		if s := state(p.pid); s == "" || s == "Z" {
			return nil
		}
		return fmt.Errorf("bash has the children %v", children(p.pid))
	})
	if err != nil {
		return "", err
	}
	if app == 0 { // a shell that cannot read from its terminal exits
		return lost, nil
	}
	return look(r, init, app)
}

const lost = "the shell loses the terminal"

func suspendedByKey(r *run, init, app int) (string, error) {
	name := "sleep"
	if r.who == dumbInit {
		name = string(dumbInit) // its app has no terminal
	}
	if err := errors.Join(r.tty.AwaitForeground(name), r.tty.Type(terminal.CtrlZ)); err != nil {
		return "", err
	}
	return r.settle(func() string {
		switch {
		case state(app) != "T":
			return "nothing stops"
		case strings.Contains(r.tty.Seen(), "Stopped"):
			return "the shell has its prompt"
		}
		return "the app stops, the shell waits"
	}), nil
}

func keepsTerminal(r *run, _, app int) (string, error) {
	group, err := r.tty.Foreground()
	if group == app {
		return lost, err
	}
	return "the shell keeps the terminal", err
}
