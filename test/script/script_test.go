// Package script tells stories of crank, crankctl and crankx, with real programs: each file in
// testdata is one, in the language of testscript (go doc github.com/rogpeppe/go-internal/testscript),
// and the table of commands below is what the stories need besides. They use a shell, curl and python3.
package script

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/test/guard"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

// commands are those of the stories. A wait is for an event, and bounded by patience.
var commands = map[string]func(s *story, not bool, args []string){
	"start":      (*story).start,      // NAME [ARG ...]: crank -name NAME ARG ..., with NAME.out and NAME.err; $NAME is its pid
	"start-as":   (*story).startAs,    // NAME PROGRAM [ARG ...]: any program, which execs crank
	"up":         (*story).up,         // NAME [GENERATION]: wait until ready (with it); set $NAME_app, a pid, and $NAME_url
	"ended":      (*story).ended,      // NAME CODE: wait until it has ended, with this code
	"signal":     (*story).signal,     // SIGNAL PID
	"gone":       (*story).gone,       // PID: wait until there is no such process
	"code":       (*story).code,       // N PROGRAM [ARG ...]: exec that exits with exactly this code
	"eventually": (*story).eventually, // PROGRAM [ARG ...]: repeat until it succeeds (!: fails)
	"appears":    (*story).appears,    // REGEXP FILE: wait until the file matches
	"serves":     (*story).serves,     // NAME|URL REGEXP: GET, on a new connection
	"same":       (*story).same,       // NAME: what answers has still the pid $NAME_app
	"ask":        (*story).ask,        // NAME: begin a GET
	"answered":   (*story).answered,   // REGEXP: the answer to the oldest ask
	"hold":       (*story).hold,       // NAME: open a connection that the echo server has accepted
	"talk":       (*story).talk,       // on all of those
	"release":    (*story).release,    // close the oldest of those
	"json":       (*story).json,       // PATH REGEXP: in the last stdout
	"keep":       (*story).keep,       // VARIABLE PATH: from the last stdout
	"port":       (*story).port,       // VARIABLE: a TCP port that nobody uses
}

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	guard.Enter()
	// Stories wait more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		return fail(err)
	}
	// What a crank leaves behind becomes a child of this process.
	if err := linux.SetSubreaper(); err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for stories with other users
		return fail(err)
	}
	if err := programs.Build(dir); err != nil {
		return fail(err)
	}
	os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	code := m.Run()
	if left := leftBehind(); len(left) > 0 {
		return fail(fmt.Errorf("processes were left behind: %v", left))
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// leftBehind returns the live descendants of this process.
func leftBehind() []proc.Entry {
	table, err := proc.Processes()
	if err != nil {
		return nil
	}
	var left []proc.Entry
	for pid, e := range table {
		if !e.Zombie && pid != os.Getpid() && table.Within(pid, os.Getpid()) {
			left = append(left, e)
		}
	}
	return left
}

func TestStories(t *testing.T) {
	cmds := map[string]func(*testscript.TestScript, bool, []string){}
	for name, command := range commands {
		cmds[name] = func(ts *testscript.TestScript, not bool, args []string) {
			s := ts.Value(storyKey{}).(*story)
			s.ts = ts
			command(s, not, args)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", Setup: newStory, Cmds: cmds, Condition: condition,
		RequireUniqueNames: true,
	})
}

// condition reports whether the machine has what a story may need: [root], [mount], [userns] and [works:PROGRAM].
func condition(name string) (bool, error) {
	if program, ok := strings.CutPrefix(name, "works:"); ok {
		return programs.Works(program) == nil, nil
	}
	switch name {
	case "root":
		return root.Full(), nil
	case "mount":
		return exec.Command("unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", os.TempDir()).Run() == nil, nil
	case "userns":
		return exec.Command("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "unshare", "-Ur", "true").Run() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}
