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

func TestGo(t *testing.T) {
	// In the module, so that it finds pkg/child at this version.
	dir, err := os.MkdirTemp(".", "testdata-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(block(t, "go")), 0o644); err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(t.TempDir(), "app")
	if out, err := exec.Command("go", "build", "-o", app, "./"+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	serve(t, "hello from Go\n", app)
}

func TestPython(t *testing.T) {
	serve(t, "hello from Python\n", "python3", write(t, "app.py", block(t, "python")))
}

func TestNode(t *testing.T) {
	serve(t, "hello from Node\n", "node", write(t, "app.js", block(t, "js")))
}

// serve runs an app under crank, swaps it five times while clients use it, and ends it.
func serve(t *testing.T, want string, command ...string) {
	if err := programs.Works(command[0]); err != nil {
		t.Skipf("NOT TESTED: the README's app: %v", err)
	}
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
