package peers

import (
	"fmt"
	"strings"
	"syscall"
)

// dumbInitStories follow dumb-init's tests: proxies_signals, child_processes, shell_background, cwd.
var dumbInitStories = []story{
	{
		name: "ordinary signals, one after the other",
		want: everybody("arrive in this order"),
		run: func(r *run) (string, error) {
			signals := []int{1, 2, 3, 10, 12, 14, 15, 18, 26, 28, 29, 30}
			got, err := r.received(signals, signals)
			return map[bool]string{true: "arrive in this order", false: got}[got == strings.Trim(fmt.Sprint(signals), "[]")], err
		},
	},
	{
		name:  "TERM QUIT CONT INT, TERM rewritten into INT",
		flags: rewrites("15:2"),
		want:  same("2 3 18 2", dumbInit),
		run: func(r *run) (string, error) {
			return r.received([]int{15, 3, 18, 2}, []int{2, 3, 18, 2})
		},
	},
	{
		name:  "TERM QUIT CONT INT, TERM and INT exchanged, QUIT rewritten into itself",
		flags: rewrites("15:2", "2:15", "3:3"),
		want:  same("2 3 18 15", dumbInit),
		run:   func(r *run) (string, error) { return r.received([]int{15, 3, 18, 2}, []int{2, 3, 18, 15}) },
	},
	{
		name:  "HUP and SYS, the lowest and the highest, exchanged",
		flags: rewrites("1:31", "31:1"),
		want:  same("31 1", dumbInit),
		run:   func(r *run) (string, error) { return r.received([]int{1, 31}, []int{31, 1}) },
	},
	{
		name:  "TERM INT WINCH HUP, TERM rewritten into QUIT, INT and WINCH dropped",
		flags: rewrites("15:3", "2:0", "28:0"),
		want:  same("3 1", dumbInit),
		run:   func(r *run) (string, error) { return r.received([]int{15, 2, 28, 1}, []int{3, 0, 0, 1}) },
	},
	{
		name: "TERM twice, and the app stays",
		want: everybody("15 15"),
		run: func(r *run) (string, error) {
			return r.received([]int{15, 15}, []int{15, 15})
		},
	},
	{
		name:  "TERM, and the app stays longer than -stop",
		flags: flags{crank: {"-stop", "100ms"}},
		want:  everybody("it runs on").but("137", crank),
		why:   "crank kills at the deadline",
		doc:   docInit,
		run:   overdue,
	},

	{
		name:  "QUIT, which does not stop the app",
		flags: flags{crank: {"-stop-on", "TERM,INT"}},
		want:  everybody("nothing else happens"),
		run:   quits,
	},
	{
		name: "TSTP to the init, and then CONT",
		as:   asChild,
		want: same("the app stops, and goes on", tini).but("both stop, and go on", dumbInit),
		why:  "in a container no shell waits for the init",
		doc:  docNot,
		run:  func(r *run) (string, error) { return r.suspended(syscall.SIGTSTP) },
	},
	{
		name: "TTIN and TTOU to the init, and then CONT",
		as:   asChild,
		want: same("the app stops, and goes on").but("both stop, and go on", dumbInit),
		why:  "in a container no shell waits for the init",
		doc:  docNot,
		run: func(r *run) (string, error) {
			first, err := r.suspended(syscall.SIGTTIN)
			if err != nil {
				return "", err
			}
			second, err := r.suspended(syscall.SIGTTOU)
			return map[bool]string{true: first, false: first + "; " + second}[first == second], err
		},
	},
	{
		name:  "TSTP rewritten into HUP",
		as:    asChild,
		flags: rewrites("20:1"),
		want:  same("the app gets 1").but("the app gets 1, and the init stops", dumbInit),
		why:   "in a container no shell waits for the init",
		doc:   docNot,
		run:   stopsItself,
	},
	{
		name:  "TSTP, and signals go to the app's process only",
		as:    asChild,
		flags: flags{dumbInit: {"-c"}},
		want:  same("the app gets 20", tini).but("the app gets 20, and the init stops", dumbInit),
		why:   "in a container no shell waits for the init",
		doc:   docNot,
		run:   stopsItself,
	},
	{
		name: "the app is stopped with STOP and continued",
		want: everybody("nothing else happens"),
		run:  stoppedAndContinued,
	},

	{
		name:  "USR1 to the app's process alone",
		as:    pid1,
		flags: flags{dumbInit: {"-c"}},
		want:  everybody("its child does not get it"),
		run:   (*run).pair,
	},
	{
		name:  "USR1 to the whole group",
		as:    pid1,
		flags: flags{crank: {"-group"}, tini: {"-g"}, catatonit: {"-g"}},
		want:  everybody("its child gets it too"),
		run:   (*run).pair,
	},
	{
		name:  "TERM to a shell with a pipeline in the background, as a group",
		as:    asChild,
		flags: flags{crank: {"-group"}, tini: {"-g"}, catatonit: {"-g"}},
		want:  everybody("nothing is left"),
		run:   pipeline,
	},
	{
		name:  "TERM to a shell with a pipeline in the background, to the shell alone",
		as:    asChild,
		flags: flags{dumbInit: {"-c"}},
		want:  everybody("2 processes are left").but("nothing is left", crank),
		why:   "crank stops leftover processes, and waits for them",
		doc:   docInit,
		run:   pipeline,
	},
	{
		name: "the app exits, and a process of its group is left",
		as:   asChild,
		want: same("it gets TERM", dumbInit).but("nothing", tini, catatonit),
		why:  "crank stops leftover processes, and waits for them",
		doc:  docInit,
		run:  func(r *run) (string, error) { return r.left("group") },
	},
	{
		name: "the app exits, and a process in a session of its own is left",
		as:   asChild,
		want: everybody("nothing").but("it gets TERM", crank),
		why:  "crank stops leftover processes, and waits for them",
		doc:  docInit,
		run:  func(r *run) (string, error) { return r.left("setsid") },
	},

	{
		name: "the app's session",
		as:   pid1,
		want: everybody("the init's; it leads a group").but("its own", dumbInit),
		why:  "crank keeps the session, and takes the terminal back at the end",
		doc:  docInit,
		run:  session,
	},
	{
		name: "the working directories",
		want: everybody("the app's is kept, the init's is kept").but("the app's is kept, the init's is /", dumbInit),
		why:  "crank resolves relative paths where it was started",
		doc:  docNot,
		run:  directories,
	},
}

// rewrites are the options of crank and dumb-init.
func rewrites(pairs ...string) flags {
	all := flags{crank: {"-rewrite", strings.Join(pairs, ",")}}
	for _, pair := range pairs {
		all[dumbInit] = append(all[dumbInit], "-r", pair)
	}
	return all
}
