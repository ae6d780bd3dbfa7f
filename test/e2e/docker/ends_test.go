//go:build e2e

package docker

import (
	"strings"
	"testing"

	"github.com/crankctl/crank/test/e2e/images"
)

// TestExitCodes: docker sees the app's own exit code, and crank's where there is no app's.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	app := []string{"/app", "-serve", "none", "-notify", "fd", "-exit-after", "0"}
	tests := []struct {
		name    string
		options string
		command []string
		stop    bool // by docker stop
		want    string
	}{
		{name: "success", command: append(app, "-exit", "0"), want: "0"},
		{name: "failure", command: append(app, "-exit", "3"), want: "3"},
		{name: "TERM", command: append(app, "-exit-after", "10m", "-die", "TERM"), want: "143"},
		{name: "TERM is a success", options: "--env CRANK_OK_CODES=143", command: append(app, "-exit-after", "10m", "-die", "TERM"), want: "0"},
		{name: "KILL", command: append(app, "-exit-after", "10m", "-die", "KILL"), want: "137"},
		{name: "drained", command: append(app, "-exit-after", "10m"), stop: true, want: "0"},
		{name: "not drained in time", options: "--env CRANK_STOP_TIMEOUT=0.5", command: append(app, "-exit-after", "10m", "-ignore-term"), stop: true, want: "137"},
		{name: "not ready in time", options: "--env CRANK_BIND=127.0.0.1:8080 --env CRANK_START_TIMEOUT=0.5", command: []string{"/app", "-never-ready"}, want: "124"},
		{name: "bad flag", options: "--entrypoint /crank", command: []string{"-bnd", "x", "--", "/app"}, want: "125"},
		{name: "bad variable", options: "--env CRANK_HUP=reload", command: app, want: "125"},
		{name: "no command", options: "--entrypoint /crank", command: []string{"-ctl", "off"}, want: "125"},
		{name: "not executable", command: []string{"/etc/passwd"}, want: "126"},
		{name: "not found", command: []string{"/nothing"}, want: "127"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			image := images.App
			if tt.name == "no command" {
				image = images.Crank // has none of its own
			}
			c := start(t, strings.Fields(tt.options), image, tt.command...)
			if tt.stop {
				c.ready()
				docker(t, "stop", "--time", "60", c.id)
			}
			if code := c.wait(); code != tt.want {
				t.Errorf("exit code %s, want %s", code, tt.want)
			}
		})
	}
}

// TestKilledFromOutside: a KILL of crank itself, which the kernel makes one of the whole container.
func TestKilledFromOutside(t *testing.T) {
	t.Parallel()
	c := serve(t, nil)
	docker(t, "kill", c.id)
	if code := c.wait(); code != "137" {
		t.Errorf("exit code %s", code)
	}
	if oom := c.inspect("{{.State.OOMKilled}}"); oom != "false" {
		t.Errorf("OOMKilled is %s", oom)
	}
}

// limit is a memory limit that leaves room for the app twice, but not for one that eats gluttony MiB.
// Without swap, what does not fit is the end.
var limit = []string{"--memory", "96m", "--memory-swap", "96m"}

const gluttony = "200"

// TestOOM: the app, alone, uses more than there is. The kernel kills it, crank reports how it ended,
// and docker knows why.
func TestOOM(t *testing.T) {
	c := start(t, limit, images.App, "/app", "-serve", "none", "-notify", "fd", "-eat", gluttony)
	if code := c.wait(); code != "137" {
		t.Errorf("exit code %s", code)
	}
	if oom := c.inspect("{{.State.OOMKilled}}"); oom != "true" {
		t.Errorf("OOMKilled is %s", oom)
	}
}

// TestCandidateDiesFirst: where there is not enough memory for a new version, the kernel kills that one,
// and the one that serves does not notice. This is the kernel's choice, and no promise: under load the serving app may need
// a page before those of the killed one have come back, and the kernel then kills another (docs/kubernetes.md).
func TestCandidateDiesFirst(t *testing.T) {
	for range 3 {
		if candidateDies(t) {
			return
		}
		t.Log("the kernel has killed more than the candidate: once more")
	}
	t.Error("in none of 3 tries the candidate alone was killed")
}

// candidateDies returns whether the container has survived.
func candidateDies(t *testing.T) bool {
	c := serve(t, limit)
	load := c.load("-keepalive")
	before := c.current()
	out, code := c.exec("/crankctl", "run", "-wait", "--", "/app", "-eat", gluttony)
	_, lives := c.exec("/crankctl", "ready") // by then the memory has come back, and the kernel has chosen
	if code != 1 || lives != 0 {
		t.Logf("crankctl run: exit code %d\n%s", code, out.stderr)
		if ended := c.wait(); ended != "137" || c.inspect("{{.State.OOMKilled}}") != "true" {
			t.Errorf("the container ended with %s, and not for its memory", ended)
		}
		return false
	}
	if !strings.Contains(out.stderr, "SIGKILL") || !strings.Contains(out.stderr, "still serving") {
		t.Errorf("crankctl run: %s", out.stderr)
	}
	if after := c.current(); after != before {
		t.Errorf("%+v serves, %+v did before", after, before)
	}
	load.lossless("generation 1 ")
	if state := c.inspect("{{.State.Status}} {{.RestartCount}}"); state != "running 0" {
		t.Errorf("the container is %s", state)
	}
	docker(t, "stop", "--time", "60", c.id)
	if state := c.inspect("{{.State.ExitCode}}"); state != "0" {
		t.Errorf("exit code %s", state)
	}
	t.Logf("after the end OOMKilled is %s, although the container was not killed", c.inspect("{{.State.OOMKilled}}"))
	return true
}
