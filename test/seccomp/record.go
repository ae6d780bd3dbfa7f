package seccomp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// trace is what one thread did, as strace -ff writes it.
type trace struct {
	calls    []string       // in their order, each as often as it was made
	children map[int]string // the threads and processes that it made, by how it made them
}

var (
	callLine  = regexp.MustCompile(`^(\w+)\(`)
	madeChild = regexp.MustCompile(`^(clone|clone3|fork|vfork)\((.*)\) = (\d+)`)
	executed  = regexp.MustCompile(`^execve(at)?\(.* = 0$`)
)

// follow adds the system calls that a program made by itself, by the files prefix.TID of strace -ff: with all of its threads,
// and for the processes that it made up to their execve. That is where the app begins.
func follow(prefix string, tid, execs int, seen map[string]bool) error {
	t, err := readTrace(fmt.Sprintf("%s.%d", prefix, tid), execs)
	if err != nil {
		return err
	}
	for _, call := range t.calls {
		seen[call] = true
	}
	for child, how := range t.children {
		execs := 1
		if strings.Contains(how, "CLONE_THREAD") {
			execs = 0
		}
		if err := follow(prefix, child, execs, seen); err != nil {
			return err
		}
	}
	return nil
}

// readTrace reads the trace of a thread up to this execve that has succeeded, 0: to its end.
func readTrace(name string, execs int) (trace, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return trace{}, err
	}
	t := trace{children: map[int]string{}}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue // a signal, an end
		}
		t.calls = append(t.calls, m[1])
		if m := madeChild.FindStringSubmatch(line); m != nil {
			var child int
			if _, err := fmt.Sscan(m[3], &child); err != nil {
				return t, err
			}
			t.children[child] = m[2]
		}
		if executed.MatchString(line) {
			if execs--; execs == 0 {
				break
			}
		}
	}
	return t, nil
}

// recordedBelow returns what all programs did whose first threads have such files in a directory: NAME.PID.PID, as the wrapper
// of test/programs names them.
func recordedBelow(dir string) (map[string]bool, error) {
	seen := map[string]bool{}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var root, tid int
		base := filepath.Base(name)
		if _, err := fmt.Sscanf(base[strings.Index(base, ".")+1:], "%d.%d", &root, &tid); err != nil || root != tid {
			continue
		}
		// The first execve is the program's own; crankctl exec becomes another one.
		if err := follow(strings.TrimSuffix(name, fmt.Sprintf(".%d", tid)), root, 2, seen); err != nil {
			return nil, err
		}
	}
	return seen, named(seen)
}

// named gives calls that are newer than strace their names, and drops what is none.
func named(seen map[string]bool) error {
	numbers, err := numbers()
	if err != nil {
		return err
	}
	for call := range seen {
		var number uint64
		if _, err := fmt.Sscanf(call, "syscall_0x%x", &number); err != nil {
			continue
		}
		delete(seen, call)
		for name, n := range numbers {
			if uint64(n) == number {
				seen[name] = true
			}
		}
	}
	return nil
}
