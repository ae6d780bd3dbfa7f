package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
sockets for its own. It exits 127 where the command is not found, 126 where it cannot be executed.`,
	examples: []string{"exec crankctl exec -- /app --v2"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			if len(args) == 0 {
				return usagef("exec needs a command")
			}
			path, err := findExecutable(args[0], "", s.env.get("PATH"))
			if err == nil {
				err = syscall.Exec(path, args, execEnvironment(s.env, os.Getpid()))
			}
			return execError(args[0], err)
		}
	},
}

func execError(name string, err error) error {
	code := exitCannotExecute
	if errors.Is(err, os.ErrNotExist) {
		code = exitNotFound
	}
	return &exitError{code, fmt.Sprintf("cannot execute %s: %v", name, err)}
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

// findExecutable returns the file that name means: itself, in dir, if it has a slash, else the
// first in path. Like a shell it goes on after a file that it may not execute, and reports that
// one only if there is no other.
func findExecutable(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) && dir != "" {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	var found error
	for _, place := range filepath.SplitList(path) {
		if place == "" || name == "" {
			continue
		}
		file := filepath.Join(place, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, os.ErrNotExist) && found == nil {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", fmt.Errorf("%w in PATH", os.ErrNotExist)
}

// executable returns why a file cannot be executed, as far as its mode says.
func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory: %w", file, os.ErrPermission)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s has no execute permission: %w", file, os.ErrPermission)
	}
	return nil
}
