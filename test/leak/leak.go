// Package leak finds goroutines and descriptors that the tests of a package have left behind.
package leak

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/guard"
)

// patience is how long what is ending may take on a busy machine; a variable for this package's own test alone.
var patience = 30 * time.Second

// Main runs the tests under a guard and returns their exit code, or 1 if all passed but something is left. It is the end of a
// TestMain. A goroutine with one of the texts of ignored in its stack is meant to stay.
func Main(m *testing.M, ignored ...string) int {
	guard.Enter()
	before := take()
	code := m.Run()
	if code != 0 || fuzzing() {
		return code // what a failed test leaves is the lesser problem
	}
	if left := before.left(ignored); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left behind by the tests:\n\n%s\n", strings.Join(left, "\n\n"))
		return 1
	}
	return code
}

// fuzzing reports whether this is a fuzzer, whose workers are not the tests' business.
func fuzzing() bool {
	f := flag.Lookup("test.fuzz")
	return f != nil && f.Value.String() != ""
}

// snapshot is what a process has.
type snapshot struct {
	goroutines  map[string]bool   // by the first line of their stack up to the number
	descriptors map[string]string // what they lead to, by number
}

func take() snapshot {
	s := snapshot{goroutines: map[string]bool{}, descriptors: descriptors()}
	for _, stack := range stacks() {
		s.goroutines[id(stack)] = true
	}
	return s
}

// left returns what has come since and stays.
func (s snapshot) left(ignored []string) (all []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		http.DefaultClient.CloseIdleConnections()
		if all = s.since(ignored); len(all) == 0 || time.Now().After(deadline) {
			return all
		}
	}
}

// runtimes are goroutines that the standard library starts once and keeps.
var runtimes = []string{"os/signal.loop", "os/signal.signal_recv", "testing.(*M).startAlarm", "testing.runFuzzTests", "runtime.ReadTrace"}

func (s snapshot) since(ignored []string) (all []string) {
	for _, stack := range stacks() {
		contains := func(text string) bool { return strings.Contains(stack, text) }
		if !s.goroutines[id(stack)] && !slices.ContainsFunc(runtimes, contains) && !slices.ContainsFunc(ignored, contains) {
			all = append(all, stack)
		}
	}
	for number, target := range descriptors() {
		if s.descriptors[number] != target {
			all = append(all, "descriptor "+number+": "+target)
		}
	}
	return all
}

// stacks returns the stacks of all goroutines but this one.
func stacks() []string {
	buffer := make([]byte, 64<<10)
	n := runtime.Stack(buffer, true)
	for n == len(buffer) {
		buffer = make([]byte, 2*len(buffer))
		n = runtime.Stack(buffer, true)
	}
	return strings.Split(strings.TrimSpace(string(buffer[:n])), "\n\n")[1:]
}

// id returns "goroutine 7", which no other goroutine of the process is ever called.
func id(stack string) string {
	before, _, _ := strings.Cut(stack, " [")
	return before
}

// descriptors returns what is open. The poller of the runtime stays once it is there, and so does the descriptor of this look.
func descriptors() map[string]string {
	entries, _ := os.ReadDir("/proc/self/fd")
	all := map[string]string{}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			all[e.Name()] = target
		}
	}
	return all
}
