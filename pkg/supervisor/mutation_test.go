package supervisor

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// The tests of this package are tested: with a legal move, or the meaning of a signal, taken out of its table at least one of them
// has to fail. The test binary runs itself for each, with that row named in a variable.

const withoutVariable = "CRANK_TEST_WITHOUT"

// rows are what can be taken out, by name.
func rows() map[string]func() {
	all := map[string]func(){"nothing": func() {}}
	for from, moves := range legal {
		for _, to := range moves {
			all[fmt.Sprintf("move %v -> %v", from, to)] = func() {
				legal[from] = slices.DeleteFunc(slices.Clone(legal[from]), func(other State) bool { return other == to })
			}
		}
	}
	for _, signal := range defaultStopOn {
		all["signal "+signalName(signal)] = func() {
			defaultStopOn = slices.DeleteFunc(slices.Clone(defaultStopOn), func(other syscall.Signal) bool { return other == signal })
		}
	}
	return all
}

func init() {
	if name := os.Getenv(withoutVariable); name != "" {
		rows()[name]()
	}
}

func TestMutations(t *testing.T) {
	if os.Getenv(withoutVariable) != "" {
		return // it is such a run
	}
	killers := map[string]string{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for name := range rows() {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			killer, err := runWithout(name)
			mu.Lock()
			defer mu.Unlock()
			if killers[name] = killer; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wait.Wait()
	if n := len(killers); n < 12+len(defaultStopOn) {
		t.Errorf("only %d rows", n)
	}
	for name, killer := range killers {
		switch {
		case name == "nothing" && killer != "":
			t.Errorf("with nothing taken out %s fails", killer)
		case name != "nothing" && killer == "":
			t.Errorf("%s: no test misses it", name)
		case name != "nothing":
			t.Logf("%-24s killed by %s", name, killer)
		}
	}
}

// runWithout runs the tests of this package without a row, and returns the first that fails; empty: none does.
func runWithout(name string) (killer string, err error) {
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.failfast", "-test.count=1", "-test.timeout=5m", "-test.run=^Test")
	cmd.Env = append(os.Environ(), withoutVariable+"="+name)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	last := ""
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if test, ok := strings.CutPrefix(line, "=== RUN "); ok {
			last = strings.TrimSpace(test)
		}
		if test, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			test, _, _ = strings.Cut(test, " ")
			return test, nil
		}
		if strings.HasPrefix(line, "panic: ") {
			return last + " (" + strings.TrimSuffix(line, " [recovered, repanicked]") + ")", nil
		}
	}
	return "", fmt.Errorf("%w\n%s", err, out)
}
