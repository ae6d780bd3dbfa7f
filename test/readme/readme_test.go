// Package readme runs the apps that the README shows, as they stand there.
package readme

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/ports"
	"github.com/crankctl/crank/test/programs"
)

const patience = 2 * time.Minute

var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin)) }

// block returns the first code block of a language.
func block(t *testing.T, language string) string {
	t.Helper()
	return markdown.Block(t, "../../README.md", "", language)
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// app is one of the README's apps, and what it answers.
type app struct {
	answer  string
	command []string
}

func goApp(t *testing.T) app {
	// In the module, so that it finds pkg/child at this version.
	dir, err := os.MkdirTemp(".", "testdata-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(block(t, "go")), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "app")
	if out, err := exec.Command("go", "build", "-o", path, "./"+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return app{"hello from Go\n", []string{path}}
}

func pythonApp(t *testing.T) app {
	return app{"hello from Python\n", []string{"python3", write(t, "app.py", block(t, "python"))}}
}

func nodeApp(t *testing.T) app {
	return app{"hello from Node\n", []string{"node", write(t, "app.js", block(t, "js"))}}
}

var apps = map[string]func(*testing.T) app{"Go": goApp, "Python": pythonApp, "Node": nodeApp}

// usable skips the test if a program that an app needs is missing or does not work.
func usable(t *testing.T, program string) {
	t.Helper()
	if err := programs.Works(program); err != nil && os.Getenv("REQUIRE_APPS") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("NOT TESTED: an app of the README: %v", err)
	}
}

// TestApps swaps each app while clients use it.
func TestApps(t *testing.T) {
	for name, prepare := range apps {
		t.Run(name, func(t *testing.T) {
			a := prepare(t)
			usable(t, a.command[0])
			serve(t, a.answer, a.command...)
		})
	}
}

// TestCtrlC runs each app in the foreground of a shell on a terminal. Ctrl-C ends it, whatever connections it has.
func TestCtrlC(t *testing.T) {
	for name, prepare := range apps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := prepare(t)
			usable(t, a.command[0])
			instance.Interrupt(t, bin, t.TempDir(), "crank -bind 127.0.0.1:0 -name web -- "+strings.Join(a.command, " "))
		})
	}
}

// byHand lists, in order, how each command of the README's block starts and what it must write.
var byHand = [][2]string{
	{"bin/crank -bind 127.0.0.1:8080 -name web -- python3 app.py &", ""},
	{"curl http://127.0.0.1:8080/", "hello from Python"},
	{"bin/crankctl reload", "swapped web 1 -> 2"},
	{"bin/crankctl run -wait -- python3 app.py --v2", "swapped web 2 -> 3"},
	{"bin/crankctl rollback", ""},
	{"bin/crankctl ps", "python3 app.py"},
	{"kill %1", ""},
}

// TestByHand types the README's block into interactive shells on a terminal.
func TestByHand(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(markdown.Blocks(t, "../../README.md", "Five minutes", "sh")[1]), "\n")
	if len(lines) != len(byHand) {
		t.Fatalf("the block has %d lines, want %d", len(lines), len(byHand))
	}
	for _, name := range []string{"bash", "dash"} {
		t.Run(name, func(t *testing.T) {
			usable(t, "python3")
			usable(t, "curl")
			dir := filepath.Dir(write(t, "app.py", block(t, "python")))
			if err := os.Symlink(bin, filepath.Join(dir, "bin")); err != nil {
				t.Fatal(err)
			}
			s, port := instance.Shell(t, name, bin, dir), ports.Unused()
			for n, line := range lines {
				if !strings.HasPrefix(line, byHand[n][0]) {
					t.Fatalf("line %d is %q, want %q", n+1, line, byHand[n][0])
				}
				line = strings.ReplaceAll(line, "8080", port)
				if n == 0 {
					s.Press(line + "\n")
					s.Await("generation ready") // a user does not type that fast
					continue
				}
				s.Succeeds(line, byHand[n][1])
			}
			s.Do("wait")
			s.Exit()
		})
	}
}

// serve runs an app under crank, swaps it five times while clients use it, and ends it.
func serve(t *testing.T, want string, command ...string) {
	i := instance.Start(t, bin, nil, command...)
	load := hammer.Start(hammer.Load{Network: "tcp", Address: i.Address, KeepAlive: 2, Short: 2, Timeout: patience})
	for range 5 {
		i.Crankctl("reload")
	}
	i.Crankctl("wait", "-idle")
	report := load.Stop()
	t.Logf("%d requests", report.Requests)
	if report.Lost > 0 {
		t.Errorf("%d of %d requests were lost: %s", report.Lost, report.Requests, strings.Join(report.Errors, "; "))
	}
	if report.Bodies[want] != report.Requests-report.Lost {
		t.Errorf("the answers are %v, want %q", report.Bodies, want)
	}
	i.Terminate()
	i.Wait()
}
