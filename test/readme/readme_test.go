// Package readme runs the apps that the README shows, as they stand there.
package readme

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/programs"
)

const patience = 2 * time.Minute

var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin)) }

// block returns the first code block of a language.
func block(t *testing.T, language string) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "\n```"+language+"\n")
	code, _, end := strings.Cut(rest, "\n```\n")
	if !ok || !end {
		t.Fatalf("the README has no %s", language)
	}
	return code + "\n"
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
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatalf("the README's app cannot be tried: %v", err)
	}
	prefix, err := os.MkdirTemp("", "c") // short: the path of a socket has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(prefix)
	var log bytes.Buffer
	crank := exec.Command(filepath.Join(bin, "crank"), append([]string{"-bind", "127.0.0.1:0", "-prefix", prefix, "-settle", "100ms", "--"}, command...)...)
	crank.Stderr = &log
	if err := crank.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- crank.Wait() }()
	defer func() {
		if t.Failed() {
			_ = crank.Process.Signal(syscall.SIGKILL)
			<-ended
			t.Log(log.String())
		}
	}()

	crankctl := func(args ...string) []byte {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "crankctl"), append([]string{"-prefix", prefix}, args...)...).Output()
		if err != nil {
			t.Fatalf("crankctl %v: %v\n%s", args, err, out)
		}
		return out
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(prefix, "app.ctl")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("crank does not start")
		}
	}
	crankctl("wait", "-ready")
	var info control.Info
	if err := json.Unmarshal(crankctl("info", "-o", "json"), &info); err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(info.Sockets[0].Bound, "://")

	stop := use(t, "http://"+address, want)
	for range 5 {
		crankctl("reload")
	}
	stop()
	if err := crank.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("crank ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("crank does not end")
	}
}

// use makes requests until stop is called, each on a connection of its own.
func use(t *testing.T, url, want string) (stop func()) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	quit := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-quit:
					t.Logf("%d requests", n)
					return
				default:
				}
				if got, err := get(client, url); err != nil || got != want {
					t.Errorf("request %d: %q, %v", n, got, err)
					return
				}
			}
		})
	}
	return func() {
		close(quit)
		clients.Wait()
	}
}

func get(client *http.Client, url string) (string, error) {
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}
