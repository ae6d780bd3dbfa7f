package pid1

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/crankctl/crank/test/programs"
)

// program is an init under test, in one of the ways that it can be run.
type program struct {
	name      string
	path      string // empty: it is not installed
	subreaper bool   // it is not PID 1: that is a process that does nothing but wait for it
	argv      []string
	options   map[option][]string // what it calls things; an option that is not here it does not have
}

// option is something to ask an init for.
type option string

const (
	optGroup   option = "signal the process group"
	optMain    option = "signal the main process only"
	optRewrite option = "rewrite USR1:USR2, drop WINCH"
	optStopBy  option = "rewrite USR1:TERM"
	optOK143   option = "report 143 as 0"
)

// inits are the columns of the matrix. The first two are ours, and must do everything.
var inits = []*program{
	{name: "crank", argv: []string{"--"}, options: cranks},
	{name: "crank, subreaper", subreaper: true, argv: []string{"--"}, options: cranks},
	{name: "tini", argv: []string{"--"}, options: map[option][]string{
		optGroup: {"-g"}, optMain: {}, optOK143: {"-e", "143"},
	}},
	{name: "dumb-init", argv: []string{"--"}, options: map[option][]string{
		optGroup: {}, optMain: {"-c"}, optRewrite: {"-r", "10:12", "-r", "28:0"}, optStopBy: {"-r", "10:15"},
	}},
	{name: "catatonit", argv: []string{"--"}, options: map[option][]string{
		optGroup: {"-g"}, optMain: {},
	}},
}

var cranks = map[option][]string{
	optGroup: {"-group"}, optMain: {}, optRewrite: {"-rewrite", "USR1:USR2,WINCH:0"}, optStopBy: {"-rewrite", "USR1:TERM"},
	optOK143: {"-ok-codes", "143"},
}

// plain executes without an init: what an app then finds is what it is to find under crank.
var plain = &program{name: "exec"}

func (p *program) ours() bool { return p.name == inits[0].name || p.name == inits[1].name }

// find sets the path of every program. Peers that are not installed have none.
func find(bin string) {
	for _, p := range inits {
		if p.ours() {
			p.path = filepath.Join(bin, "crank")
		} else if err := programs.Works(p.name); err != nil {
			fmt.Println("NOT COMPARED:", err)
		} else {
			p.path, _ = exec.LookPath(p.name)
		}
	}
}

// command is the whole command line.
func (p *program) command(flags []string, app ...string) []string {
	if p == plain {
		return app
	}
	return slices.Concat([]string{p.path}, flags, p.argv, app)
}

// kept are the signals that crank keeps to itself, and those that nobody can catch or forward: 32 to
// 34 are the C library's and the Go runtime's.
var kept = map[syscall.Signal]string{
	syscall.SIGKILL: "cannot be caught", syscall.SIGSTOP: "cannot be caught",
	syscall.SIGCHLD: "says that a child has ended", syscall.SIGPIPE: "comes of a closed stdout", syscall.SIGURG: "is how Go preempts goroutines",
	syscall.SIGPROF: "is the Go runtime's profiler's", 32: "is the C library's", 33: "is the C library's", 34: "is the Go runtime's",
}

// forwarded are all others.
func forwarded() (all []syscall.Signal) {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if kept[sig] == "" {
			all = append(all, sig)
		}
	}
	return all
}
