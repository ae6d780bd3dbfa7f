// Package processes looks at processes from outside, by /proc, for tests that drive real programs.
package processes

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
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

// Name returns the name of the program that a process runs, truncated to 15 bytes (proc_pid_comm(5)); empty if the process is gone.
func Name(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(text))
}

// With returns the processes that have been started with a variable: "KEY=value".
func With(variable string) (found []int) {
	key, value, _ := strings.Cut(variable, "=")
	for _, pid := range all() {
		if got, ok := lookup(pid, key); ok && got == value {
			found = append(found, pid)
		}
	}
	return found
}

// Variable returns a variable that a process was started with; empty where it has none.
func Variable(pid int, key string) string {
	value, _ := lookup(pid, key)
	return value
}

// How much of an environment is read. A process can make its environment look as long as its memory (PR_SET_MM_MAP(2const)), and the
// tests look at every process on the machine, not only their own. They look for short variables.
const (
	maxEnviron  = 1 << 20
	maxVariable = 4 << 10
)

// lookup reads a process's environment up to the variable. It does not find a variable longer than maxVariable.
func lookup(pid int, key string) (value string, ok bool) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "", false
	}
	defer file.Close()
	return find(io.LimitReader(file, maxEnviron), key)
}

func find(environ io.Reader, key string) (value string, ok bool) {
	in := bufio.NewReaderSize(environ, maxVariable)
	for whole := true; ; {
		variable, err := in.ReadSlice(0)
		if name, value, ok := bytes.Cut(variable, []byte{'='}); ok && whole && err == nil && string(name) == key {
			return string(value[:len(value)-1]), true
		}
		if err != nil && err != bufio.ErrBufferFull {
			return "", false
		}
		whole = err == nil // otherwise the rest of this variable comes next
	}
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
