// Package processes looks at processes from outside, by /proc, for tests that drive real programs.
package processes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Descriptors returns how many a process has.
func Descriptors(pid int) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list)
}

// Stat returns the state and the parent of a process, as /proc/PID/stat says; an empty state for one that is gone.
func Stat(pid int) (state string, parent int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	if f := strings.Fields(rest); len(f) > 1 {
		parent, _ = strconv.Atoi(f[1])
		return f[0], parent
	}
	return "", 0
}

// Children returns the children of a process, zombies among them.
func Children(pid int) (found []int) {
	for _, p := range all() {
		if _, parent := Stat(p); parent == pid {
			found = append(found, p)
		}
	}
	return found
}

// Zombies returns the children of a process that nobody has waited for.
func Zombies(pid int) []int {
	return slices.DeleteFunc(Children(pid), func(child int) bool {
		state, _ := Stat(child)
		return state != "Z"
	})
}

// With returns the processes that have been started with a variable: "KEY=value".
func With(variable string) (found []int) {
	for _, pid := range all() {
		if slices.Contains(environ(pid), variable) {
			found = append(found, pid)
		}
	}
	return found
}

// Variable returns a variable that a process was started with; empty where it has none.
func Variable(pid int, name string) string {
	for _, variable := range environ(pid) {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	return ""
}

func environ(pid int) (variables []string) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for variable := range bytes.SplitSeq(text, []byte{0}) {
		variables = append(variables, string(variable))
	}
	return variables
}

func all() (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range found {
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Environment is that of the test without what would steer crank or the app, and with more variables.
func Environment(more ...string) []string {
	kept := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		for _, prefix := range []string{"CRANK_", "APP_", "LISTEN_", "NOTIFY_"} {
			if strings.HasPrefix(variable, prefix) {
				return true
			}
		}
		return false
	})
	return append(kept, more...)
}

// ReplaceProgram puts a changed copy of a program at path, by a rename. No process is forked while it can be written to:
// what is open for writing is not executed.
func ReplaceProgram(path, from string, change func([]byte) []byte) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	err = os.WriteFile(path+".new", change(program), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
