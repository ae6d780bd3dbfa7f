//go:build e2e

package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/e2e/images"
)

// composeCommand is the compose that is installed: docker's plugin, or the older program.
func composeCommand() []string {
	for _, c := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if _, code, err := command(c[0], append(c[1:], "version")...); err == nil && code == 0 {
			return c
		}
	}
	return nil
}

// offline is added to the file under test: no network, as for all containers here. The app drains for
// longer than docker waits where nobody tells it to.
const offline = `
services:
  web:
    network_mode: none
    labels: {crank-e2e: "1"}
    environment: {APP_DRAIN: 30s}
`

// ports is the part of the file that cannot be without a network.
var ports = regexp.MustCompile(`(?m)^    ports:\n(      .*\n)+`)

// TestCompose: compose accepts deploy/compose/compose.yaml, and what is in it works.
func TestCompose(t *testing.T) {
	t.Parallel()
	program := composeCommand()
	if program == nil {
		fmt.Println("NOT TESTED: docker compose is not installed")
		t.Skip("neither docker compose nor docker-compose")
	}
	root, err := images.Root()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(root, "deploy", "compose", "compose.yaml")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if !ports.Match(text) {
		t.Fatalf("%s publishes no port", original)
	}
	dir := t.TempDir()
	file, override := filepath.Join(dir, "compose.yaml"), filepath.Join(dir, "offline.yaml")
	for path, content := range map[string]string{file: ports.ReplaceAllString(string(text), ""), override: offline} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	project := fmt.Sprintf("crank-e2e-%d", os.Getpid())
	environment := []string{"IMAGE=" + images.App}
	run := func(args ...string) string {
		t.Helper()
		args = append(program[1:len(program):len(program)], args...)
		out, code, err := commandEnv(environment, program[0], args...)
		if err != nil || code != 0 {
			t.Fatalf("%s %s: exit code %d, %v\n%s%s", program[0], strings.Join(args, " "), code, err, out.stdout, out.stderr)
		}
		return out.stdout
	}
	compose := func(args ...string) string {
		t.Helper()
		return run(append([]string{"--project-name", project, "--file", file, "--file", override}, args...)...)
	}

	run("--file", original, "config")
	t.Cleanup(func() { compose("down", "--volumes", "--timeout", "1") })
	compose("up", "--detach")
	c := &container{t: t, ctl: "/crankctl", id: strings.TrimSpace(compose("ps", "--quiet"))}
	c.eventually("healthy", func() error {
		if health := c.inspect("{{.State.Health.Status}}"); health != "healthy" {
			return fmt.Errorf("it is %s", health)
		}
		return nil
	})
	load := c.load("-keepalive")
	compose("exec", "-T", "web", "/crankctl", "reload")
	compose("kill", "-s", "HUP", "web")
	c.crankctl("wait", "-generation", "3", "-timeout", "1m")
	compose("exec", "-T", "web", "/crankctl", "run", "-wait", "--", "/app", "-body", "updated")
	load.lossless("generation 1 ", "generation 2 ", "generation 3 ", "updated")

	compose("restart", "web")
	c.ready()
	client := c.client("load: asked", "-get", url+"/?delay=12s", "-timeout", "1m") // longer than docker's 10 s
	began := time.Now()
	compose("stop")
	if code, answer := client.wait(), client.logs().stdout; code != "0" || !strings.Contains(answer, "updated") {
		t.Errorf("the request during the stop: exit code %s, answer %q", code, answer)
	}
	if state := c.inspect("{{.State.Status}} {{.State.ExitCode}}"); state != "exited 0" {
		t.Errorf("after %v the container is %s", time.Since(began), state)
	}
}
