//go:build e2e

// Package docker runs crank in containers of a real Docker engine, and looks at it as its users do: with
// the docker command, and with clients in the container's own network.
//
// No container has another network than none, or that of another container. Each is removed at the
// end of its test.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/e2e/images"
)

// patience is how long a single thing may take on a busy machine; nothing is asserted about less.
const patience = 2 * time.Minute

// label marks the containers and volumes of these tests.
const label = "crank-e2e=1"

// url is where every app serves, in its own network namespace.
const url = "http://127.0.0.1:8080"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if out, code, err := command("docker", "info", "--format", "{{.ServerVersion}}"); err != nil || code != 0 {
		fmt.Printf("NOT TESTED: no Docker engine answers: %s%s\n", out.stderr, errorText(err))
		if os.Getenv("REQUIRE_E2E") != "" {
			return 1
		}
		return 0
	}
	if err := images.Build(images.Crank, images.App, images.AppV2); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// output is what a command has printed.
type output struct{ stdout, stderr string }

// command runs a command to its end. err is not nil where that did not work, or took too long.
func command(name string, args ...string) (out output, code int, err error) {
	return commandEnv(nil, name, args...)
}

// commandEnv is command with more in the environment.
func commandEnv(env []string, name string, args ...string) (out output, code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience) // an image is built once
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	return output{stdout.String(), stderr.String()}, cmd.ProcessState.ExitCode(), err
}

// docker runs a docker command that must succeed, and returns its stdout without the last newline.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, code, err := command("docker", args...)
	if err != nil || code != 0 {
		t.Fatalf("docker %s: exit code %d, %v\n%s", strings.Join(args, " "), code, err, out.stderr)
	}
	return strings.TrimSuffix(out.stdout, "\n")
}

// build builds an image of testdata, and returns its name. Docker has a cache.
func build(t *testing.T, name string) string {
	t.Helper()
	image := "crank-e2e-" + name
	out, code, err := commandEnv([]string{"DOCKER_BUILDKIT=0"}, "docker", "build", "--network", "host", "--label", label, "--tag", image, filepath.Join("testdata", name))
	if err != nil || code != 0 {
		t.Fatalf("cannot build %s: exit code %d, %v\n%s%s", image, code, err, out.stdout, out.stderr)
	}
	return image
}

// container is one that was started.
type container struct {
	t   *testing.T
	id  string
	ctl string // crankctl in it
}

// start starts a container with these options of docker run, and removes it at the end of the test. An
// app under test in it ends by itself after some minutes, should the test be killed.
func start(t *testing.T, options []string, image string, argv ...string) *container {
	t.Helper()
	args := []string{"run", "--detach", "--label", label, "--env", "APP_EXIT=0", "--env", "APP_EXIT_AFTER=10m"}
	if !slices.Contains(options, "--network") {
		args = append(args, "--network", "none")
	}
	args = append(append(append(args, options...), image), argv...)
	c := &container{t: t, ctl: "/crankctl"}
	out, code, err := command("docker", args...)
	// A container that could not be started exists all the same.
	c.id = strings.TrimSpace(out.stdout)
	if c.id != "" {
		t.Cleanup(c.remove)
	}
	if err != nil || code != 0 {
		t.Fatalf("docker %s: exit code %d, %v\n%s", strings.Join(args, " "), code, err, out.stderr)
	}
	return c
}

// serve starts an app under crank and waits until it is ready.
func serve(t *testing.T, options []string, app ...string) *container {
	t.Helper()
	if len(app) > 0 {
		app = append([]string{"/app"}, app...)
	}
	c := start(t, append([]string{"--env", "CRANK_BIND=127.0.0.1:8080"}, options...), images.App, app...)
	c.ready()
	return c
}

func (c *container) remove() {
	if c.t.Failed() {
		out, _, _ := command("docker", "logs", "--tail", "50", c.id)
		state, _, _ := command("docker", "inspect", "--format", "{{json .State}}", c.id)
		c.t.Logf("container %.12s\nstdout:\n%s\nstderr:\n%s\nstate: %s", c.id, out.stdout, out.stderr, state.stdout)
	}
	if out, code, err := command("docker", "rm", "--force", "--volumes", c.id); err != nil || code != 0 {
		c.t.Errorf("container %s is left: %s%s", c.id, out.stderr, errorText(err))
	}
}

// exec runs a command in the container.
func (c *container) exec(args ...string) (output, int) {
	c.t.Helper()
	out, code, err := command("docker", append([]string{"exec", c.id}, args...)...)
	if err != nil {
		c.t.Fatalf("docker exec %s: %v\n%s", strings.Join(args, " "), err, out.stderr)
	}
	return out, code
}

// crankctl runs crankctl in the container, which must succeed, and returns its stdout.
func (c *container) crankctl(args ...string) string {
	c.t.Helper()
	out, code := c.exec(append([]string{c.ctl}, args...)...)
	if code != 0 {
		c.t.Fatalf("crankctl %s: exit code %d\n%s%s", strings.Join(args, " "), code, out.stdout, out.stderr)
	}
	return out.stdout
}

// generation is one in crankctl ps.
type generation struct {
	Generation, PID int
	State           string
}

// current returns the generation that serves.
func (c *container) current() generation {
	c.t.Helper()
	var list []generation
	text := c.crankctl("ps", "-ready", "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		c.t.Fatalf("crankctl ps -ready: %v in %s", err, text)
	}
	return list[0]
}

// ready waits until crank says so.
func (c *container) ready() {
	c.t.Helper()
	c.eventually("ready", func() error {
		if out, code := c.exec(c.ctl, "ready"); code != 0 {
			return fmt.Errorf("crankctl ready: %s", out.stderr)
		}
		return nil
	})
}

// get returns what the app answers.
func (c *container) get() string {
	c.t.Helper()
	out, code := c.exec("/load", "-get", url)
	if code != 0 {
		c.t.Fatalf("load -get: exit code %d: %s", code, out.stderr)
	}
	return out.stdout
}

// inspect returns what docker knows.
func (c *container) inspect(format string) string {
	c.t.Helper()
	return docker(c.t, "inspect", "--format", format, c.id)
}

// logs returns all that the container has printed.
func (c *container) logs() output {
	c.t.Helper()
	out, code, err := command("docker", "logs", c.id)
	if err != nil || code != 0 {
		c.t.Fatalf("docker logs: exit code %d, %v: %s", code, err, out.stderr)
	}
	return out
}

// wait waits until the container has ended, and returns its exit code.
func (c *container) wait() string {
	c.t.Helper()
	c.eventually("ended", func() error {
		if state := c.inspect("{{.State.Status}}"); state != "exited" {
			return errors.New(state)
		}
		return nil
	})
	return c.inspect("{{.State.ExitCode}}")
}

// eventually asks until there is no error.
func (c *container) eventually(what string, ask func() error) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("never %s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// report is what the load generator prints.
type report struct {
	Requests, Lost, Slow int
	Longest              float64 `json:"longest_ms"`
	Answers              map[string]int
	Errors               []string
}

// load starts the load generator beside the container, and waits until it runs.
func (c *container) load(flags ...string) *container {
	c.t.Helper()
	return c.client("load: running", append([]string{"-url", url, "-for", "10m"}, flags...)...)
}

// client starts the load generator in the container's network, and waits until it has printed text.
func (c *container) client(text string, flags ...string) *container {
	c.t.Helper()
	l := start(c.t, []string{"--network", "container:" + c.id, "--entrypoint", "/load", "--no-healthcheck"}, images.App, flags...)
	l.eventually(text, func() error {
		if logs := l.logs(); !strings.Contains(logs.stderr, text) {
			return errors.New(logs.stderr)
		}
		return nil
	})
	return l
}

// lossless ends the load generator. No request was lost, and all of these answers came.
func (c *container) lossless(answers ...string) report {
	c.t.Helper()
	docker(c.t, "kill", "--signal", "TERM", c.id)
	c.wait()
	var r report
	logs := c.logs()
	if err := json.Unmarshal([]byte(logs.stdout), &r); err != nil {
		c.t.Fatalf("the load generator printed %q, %q: %v", logs.stdout, logs.stderr, err)
	}
	c.t.Logf("%d requests, %d lost, the longest took %.1f ms", r.Requests, r.Lost, r.Longest)
	if r.Lost > 0 {
		c.t.Errorf("%d requests lost:\n%s", r.Lost, strings.Join(r.Errors, "\n"))
	}
	for _, answer := range answers {
		if !r.answered(answer) {
			c.t.Errorf("nobody was answered %q, but %v", answer, r.Answers)
		}
	}
	return r
}

// answered reports whether an answer contains text.
func (r report) answered(text string) bool {
	for body := range r.Answers {
		if strings.Contains(body+"\n", text) {
			return true
		}
	}
	return false
}
