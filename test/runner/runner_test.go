package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/guard"
	"github.com/crankctl/crank/test/processes"
)

// asRunner makes the test binary the runner.
const asRunner = "TEST_AS_RUNNER"

func TestMain(m *testing.M) {
	if os.Getenv(asRunner) != "" {
		os.Exit(run())
	}
	os.Exit(guard.Main(m))
}

// modules are files by path: three modules, two of which fail, and one whose test waits.
var modules = map[string]string{
	"go.mod": "module example.test/first\n\ngo 1.26\n",
	"passes/passes_test.go": `package passes
import "testing"
func TestPasses(t *testing.T) {}
func TestSkips(t *testing.T) { t.Skip("there is no moon") }
func TestPart(t *testing.T) { t.Log("NOT TESTED: the far side") }
func TestAgain(t *testing.T) { t.Log("NOT TESTED: the far side") }
func TestStory(t *testing.T) { t.Log("> [!moon] skip 'NOT TESTED without a moon'") }
`,
	"fails/fails_test.go": `package fails
import "testing"
func TestFails(t *testing.T) {
	t.Run("fine", func(t *testing.T) { t.Log("what nobody wants to know") })
	t.Run("bad", func(t *testing.T) { t.Error("the reason") })
}
`,
	"panics/panics_test.go": "package panics\nimport \"testing\"\nfunc TestPanics(t *testing.T) { panic(\"oh no\") }\n",
	"broken/broken_test.go": "package broken\nimport \"testing\"\nfunc TestBroken(t *testing.T) { undefined() }\n",
	"second/go.mod":         "module example.test/second\n\ngo 1.26\n",
	"second/exits_test.go":  "package second\nimport (\"os\"; \"testing\")\nfunc TestExits(t *testing.T) { os.Exit(3) }\n",
	"third/go.mod":          "module example.test/third\n\ngo 1.26\n",
	"third/third_test.go":   "package third\nimport \"testing\"\nfunc TestThird(t *testing.T) {}\n",
	"waits/go.mod":          "module example.test/waits\n\ngo 1.26\n",
	"waits/waits_test.go": `package waits
import ("fmt"; "os"; "os/exec"; "syscall"; "testing"; "time")
func TestWaits(t *testing.T) {
	t.Run("long", func(t *testing.T) {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil { t.Fatal(err) }
		if err := os.WriteFile(os.TempDir()+"/left", nil, 0o600); err != nil { t.Fatal(err) }
		fmt.Println("sleep", cmd.Process.Pid)
		if err := os.WriteFile(os.Getenv("UP"), []byte(fmt.Sprint(cmd.Process.Pid)), 0o600); err != nil { t.Fatal(err) }
		if os.Getenv("WAITS") != "" { time.Sleep(time.Hour) }
	})
}
`,
}

// runner is a runner in the modules, with its own TMPDIR.
type runner struct {
	*testing.T
	cmd      *exec.Cmd
	dir, tmp string
	stderr   bytes.Buffer
}

func newRunner(t *testing.T, dir string, args ...string) *runner {
	t.Helper()
	r := &runner{T: t, dir: t.TempDir(), tmp: t.TempDir()}
	for name, content := range modules {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(self, args...)
	r.cmd.Dir, r.cmd.Stderr = filepath.Join(r.dir, dir), &r.stderr
	r.cmd.Env = append(os.Environ(), asRunner+"=1", "TMPDIR="+r.tmp, "GOWORK=off", "GOFLAGS=-vet=off")
	return r
}

// leftNothing checks that no file is left in TMPDIR, and that the process whose pid is in the file up is gone.
func (r *runner) leftNothing(up string) {
	r.Helper()
	if entries, err := os.ReadDir(r.tmp); err != nil || len(entries) > 0 {
		r.Errorf("%v is left in TMPDIR, error %v", entries, err)
	}
	if up == "" {
		return
	}
	text, err := os.ReadFile(up)
	if err != nil {
		r.Fatal(err)
	}
	pid, _ := strconv.Atoi(string(text))
	if state, _ := processes.Stat(pid); state != "" {
		r.Errorf("process %d is left", pid)
	}
}

// All modules are tested, whatever fails. Failures are shown and listed, and so is what was not tested.
func TestReport(t *testing.T) {
	r := newRunner(t, ".", "-log", "log", "-modules", "second third", "-first", "-timeout=9m", "--", "-count=1", "./...")
	out, err := r.cmd.Output()
	if fmt.Sprint(err) != "exit status 1" {
		t.Errorf("it ended with %v\n%s", err, &r.stderr)
	}
	text := string(out)
	log, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nok  \texample.test/first/passes\t", "\nok  \texample.test/third\t",
		"\nFAIL\texample.test/first/fails\t", "\nFAIL\texample.test/first/panics\t", "\nFAIL\texample.test/second\t",
		"\nNOT TESTED: there is no moon (example.test/first/passes TestSkips)\n", "\nNOT TESTED: the far side (example.test/first/passes TestPart)\n",
		"\nFAILED: example.test/first/fails TestFails/bad\n", "\nFAILED: example.test/first/panics TestPanics\n", "\nFAILED: example.test/second\n",
		"\nFAILED: example.test/first/broken: cannot be built\n",
		"\nFAIL: 2 packages passed, 4 failures, ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
		if !strings.Contains("\n"+string(log), want) {
			t.Errorf("there is no %q in the log", want)
		}
	}
	for _, want := range []string{".: go test compiles", "second: go test compiles", "the reason", "panic: oh no", "undefined: undefined"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if strings.Contains(text, "what nobody wants to know") || strings.Count(text, "far side") != 1 || strings.Contains(text, "without a moon") {
		t.Error("the output has too much")
	}
	if t.Failed() {
		t.Logf("it wrote\n%s\n%s", text, &r.stderr)
	}
	r.leftNothing("")
}

// An interrupted run says so, and leaves neither files nor processes. Before that it shows what is running.
func TestInterrupted(t *testing.T) {
	r := newRunner(t, "waits", "-every", "1ms", "--", "-count=1", "./...")
	up := filepath.Join(r.dir, "up")
	r.cmd.Env = append(r.cmd.Env, "UP="+up, "WAITS=1")
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []string
	named := false
	for s := bufio.NewScanner(out); s.Scan(); {
		all = append(all, s.Text())
		if _, err := os.Stat(up); err == nil && strings.Contains(s.Text(), "waits TestWaits/long (") && !named {
			named = true
			if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.cmd.Wait(); fmt.Sprint(err) != "exit status 130" || !named || !strings.HasPrefix(all[len(all)-1], "INTERRUPTED: interrupt: ") {
		t.Errorf("it ended with %v and wrote\n%s\n%s", err, strings.Join(all, "\n"), &r.stderr)
	}
	r.leftNothing(up)
}

// A run that passes but leaves a process fails. The process is named and killed.
func TestLeftBehind(t *testing.T) {
	r := newRunner(t, "waits", "--", "-count=1", "./...")
	up := filepath.Join(r.dir, "up")
	r.cmd.Env = append(r.cmd.Env, "UP="+up)
	out, err := r.cmd.Output()
	if fmt.Sprint(err) != "exit status 1" || !strings.Contains(string(out), "left behind and killed: ") || !strings.Contains(string(out), "(sleep)") {
		t.Errorf("it ended with %v and wrote\n%s\n%s", err, out, &r.stderr)
	}
	r.leftNothing(up)
}
