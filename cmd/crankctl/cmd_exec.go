package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/crankctl/crank/pkg/execvp"
)

// The exit codes of a command that cannot be run, as a shell gives them.
const (
	exitCannotExecute = 126
	exitNotFound      = 127
)

var cmdExec = &command{
	name:    "exec",
	local:   true,
	args:    "[--] command [arg ...]",
	summary: "run a command in this process, with LISTEN_PID set to it",
	details: `For wrappers that fork: crank has set LISTEN_PID to the wrapper, so that the app would not take the
sockets for its own. It executes the command as execvp(3) does, and exits 127 if the command is not found, 126 if it
cannot be executed.`,
	examples: []string{"exec crankctl exec -- /app --v2"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			if len(args) == 0 {
				return usagef("exec needs a command")
			}
			return execError(execvp.Exec(args, execEnvironment(s.env, os.Getpid())))
		}
	},
}

func execError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &exitError{exitNotFound, err.Error()}
	}
	return &exitError{exitCannotExecute, err.Error()}
}

// ownPIDs are the variables that name the process that another one is meant for, if that is there at all.
var ownPIDs = []struct{ name, with string }{{"LISTEN_PID", "LISTEN_FDS"}, {"WATCHDOG_PID", "WATCHDOG_USEC"}}

// execEnvironment is env with LISTEN_PID and WATCHDOG_PID. LISTEN_PIDFDID names the process that it was made
// for, so it goes.
func execEnvironment(env environment, pid int) []string {
	changed := slices.Clone(env)
	for _, own := range ownPIDs {
		if _, ok := env.lookup(own.with); ok {
			changed = append(without(changed, own.name), own.name+"="+strconv.Itoa(pid))
		}
	}
	if _, ok := env.lookup("LISTEN_FDS"); ok {
		changed = without(changed, "LISTEN_PIDFDID")
	}
	return changed
}

func without(env environment, name string) environment {
	return slices.DeleteFunc(env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
}
