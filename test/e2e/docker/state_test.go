//go:build e2e

package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/e2e/images"
)

// TestHealth: the image's HEALTHCHECK is unhealthy before the app is ready, healthy then, and
// unhealthy again while it drains. Docker knows the exit codes 0 and 1 alone.
func TestHealth(t *testing.T) {
	t.Parallel()
	c := start(t, []string{"--env", "CRANK_BIND=127.0.0.1:8080", "--env", "CRANK_DRAIN_DELAY=5m",
		"--health-interval", "200ms", "--health-start-period", "1ms", "--health-retries", "1"}, images.App, "/app", "-ready-after", "20s")
	for _, want := range []string{"unhealthy", "healthy", "unhealthy"} {
		c.eventually(want, func() error {
			if health := c.inspect("{{.State.Health.Status}}"); health != want {
				return errors.New(health)
			}
			return nil
		})
		if want == "healthy" {
			docker(t, "kill", "--signal", "TERM", c.id) // not ready from now on, but it serves for 5 minutes
		}
	}
	if answer := c.get(); !strings.Contains(answer, "generation 1 ") {
		t.Errorf("the answer is %q", answer)
	}
	var checks []struct {
		ExitCode int
		Output   string
	}
	if err := json.Unmarshal([]byte(c.inspect("{{json .State.Health.Log}}")), &checks); err != nil || len(checks) == 0 {
		t.Fatalf("the log of the health checks: %v, %d entries", err, len(checks))
	}
	for _, check := range checks {
		if check.ExitCode != 0 && check.ExitCode != 1 || check.Output == "" {
			t.Errorf("health check: exit code %d, %q", check.ExitCode, check.Output)
		}
	}
}

// TestReadOnlyUnprivileged: nothing can be written, no capability, a user that the image does not know,
// no way to more privileges. The control socket is then in /dev/shm.
func TestReadOnlyUnprivileged(t *testing.T) {
	t.Parallel()
	c := serve(t, []string{"--read-only", "--cap-drop", "ALL", "--user", "12345", "--security-opt", "no-new-privileges"})
	load := c.load("-keepalive")
	out := c.crankctl("run", "-wait", "--", "/app", "-body", "second")
	if !strings.Contains(out, "swapped app 1 -> 2") {
		t.Errorf("crankctl run prints %q", out)
	}
	c.crankctl("rollback")
	load.lossless("generation 1 ", "second", "generation 3 ")
	var info struct{ Ctl, Conf string }
	text := c.crankctl("info", "-o", "json")
	if err := json.Unmarshal([]byte(text), &info); err != nil || !strings.HasPrefix(info.Ctl, "/dev/shm/crank-12345-") || filepath.Dir(info.Conf) != filepath.Dir(info.Ctl) {
		t.Errorf("control socket %q, saved command %q, %v", info.Ctl, info.Conf, err)
	}
	docker(t, "stop", "--time", "60", c.id)
	if code := c.wait(); code != "0" {
		t.Errorf("exit code %s", code)
	}
}

// TestInit: under docker's own init crank is not PID 1. It adopts and reaps the orphans of its app as
// well, swaps, and ends as it should.
func TestInit(t *testing.T) {
	t.Parallel()
	c := start(t, []string{"--init", "--env", "CRANK_BIND=127.0.0.1:8080"}, build(t, "debian"),
		"sh", "-c", "(sleep 0.1 &); (sleep 1000 &); exec /app")
	c.ready()
	if list := c.top(); len(list["docker-init"]) != 1 || len(list["crank"]) != 1 {
		t.Errorf("processes: %v", list)
	}
	c.eventually("reaped", func() error {
		list := c.top()
		if len(list["sleep"]) != 1 || list["sleep"][0].parent != list["crank"][0].pid {
			return fmt.Errorf("processes: %v", list)
		}
		return nil
	})
	first := c.top()["sleep"][0].pid
	c.crankctl("reload")
	c.crankctl("wait", "-idle")
	c.eventually("rid of what the first generation left behind", func() error {
		for name, list := range c.top() {
			for _, p := range list {
				if p.pid == first || strings.HasPrefix(p.state, "Z") {
					return fmt.Errorf("%s: %v", name, p)
				}
			}
		}
		return nil
	})
	docker(t, "stop", "--time", "60", c.id)
	if code := c.wait(); code != "0" {
		t.Errorf("exit code %s", code)
	}
}

// process is one as docker top shows it, with the pids of the host.
type process struct{ pid, parent, state string }

// top returns the processes of the container by their names.
func (c *container) top() map[string][]process {
	c.t.Helper()
	list := map[string][]process{}
	for _, line := range strings.Split(docker(c.t, "top", c.id, "-o", "pid,ppid,stat,comm"), "\n")[1:] {
		if f := strings.Fields(line); len(f) >= 4 {
			list[f[3]] = append(list[f[3]], process{f[0], f[1], f[2]})
		}
	}
	return list
}

// TestPause: docker pause stops crank and the app for longer than -start. That is not charged to the
// candidate, which needs its time after it.
func TestPause(t *testing.T) {
	t.Parallel()
	// The pause ends before the candidate is ready, and without a credit after its deadline.
	const limit, paused, ready = 10 * time.Second, 12 * time.Second, 16 * time.Second
	c := serve(t, []string{"--env", "CRANK_START_TIMEOUT=" + limit.String(), "--env", "CRANK_SETTLE=0"})
	c.crankctl("run", "--", "/app", "-ready-after", ready.String())
	docker(t, "pause", c.id)
	time.Sleep(paused)
	docker(t, "unpause", c.id)
	c.crankctl("wait", "-generation", "2", "-timeout", "1m")
	if g := c.current().Generation; g != 2 {
		t.Errorf("generation %d serves", g)
	}
}

// TestLogs: docker logs has the app's stdout as it was written, and its stderr among crank's own lines,
// which are JSON.
func TestLogs(t *testing.T) {
	t.Parallel()
	c := serve(t, nil, "-stderr", "  {not json}\tof the app")
	c.crankctl("reload")
	docker(t, "stop", "--time", "60", c.id)
	c.wait()
	logs := c.logs()
	if want := strings.Repeat("serving 127.0.0.1:8080\n", 2); logs.stdout != want {
		t.Errorf("stdout is %q, want %q", logs.stdout, want)
	}
	var own int
	for line := range strings.Lines(logs.stderr) {
		if line == "  {not json}\tof the app\n" {
			own++
		} else if !json.Valid([]byte(line)) {
			t.Errorf("stderr has %q", line)
		}
	}
	if own != 2 {
		t.Errorf("stderr has the app's line %d times:\n%s", own, logs.stderr)
	}
}

// TestRuntimeDirectory: what crankctl run put in place is still there after docker restart. In a volume
// it is there for the next container as well, until that has another command line.
func TestRuntimeDirectory(t *testing.T) {
	t.Parallel()
	c := serve(t, nil, "-body", "one")
	c.crankctl("run", "-wait", "--", "/app", "-body", "two")
	for range 2 {
		docker(t, "restart", "--time", "60", c.id)
		c.ready()
		if answer := c.get(); !strings.Contains(answer, "two") {
			t.Errorf("after docker restart: %q", answer)
		}
	}

	volume := docker(t, "volume", "create", "--label", label)
	t.Cleanup(func() { docker(t, "volume", "rm", volume) })
	for _, tt := range []struct{ command, run, want string }{
		{command: "one", run: "two", want: "two"},
		{command: "one", want: "two"}, // the same command line: the update is kept
		{command: "three", want: "three"},
		{command: "one", want: "one"}, // the update was for another command line
	} {
		c := serve(t, []string{"--read-only", "--volume", volume + ":/run/crank"}, "-body", tt.command)
		if tt.run != "" {
			c.crankctl("run", "-wait", "--", "/app", "-body", tt.run)
			c.crankctl("wait", "-idle") // until then the old one may still accept
		}
		if answer := c.get(); !strings.Contains(answer, tt.want) {
			t.Errorf("%+v: the answer is %q", tt, answer)
		}
		docker(t, "stop", "--time", "60", c.id)
	}

	// An update whose program the next container does not have is set aside.
	c = serve(t, []string{"--volume", volume + ":/run/crank"}, "-body", "one")
	program := filepath.Join(t.TempDir(), "app")
	docker(t, "cp", c.id+":/app", program)
	docker(t, "cp", program, c.id+":/app-v2")
	c.crankctl("run", "-wait", "--", "/app-v2", "-body", "two")
	docker(t, "stop", "--time", "60", c.id)
	c = serve(t, []string{"--volume", volume + ":/run/crank"}, "-body", "one")
	if answer := c.get(); !strings.Contains(answer, "one") {
		t.Errorf("without the program of the update the answer is %q", answer)
	}
}

// TestReplaceBinary: three ways to get a new version into a running container, and one that does not
// work.
func TestReplaceBinary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	for path, image := range map[string]string{v1: images.App, v2: images.AppV2} {
		if err := os.WriteFile(path, filesOf(t, image)["app"].content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(c *container, want string) {
		t.Helper()
		c.crankctl("wait", "-idle") // until then the old one may still accept
		if answer := c.get(); !strings.HasPrefix(answer, "version "+want+" ") {
			t.Errorf("the answer is %q, want version %s", answer, want)
		}
	}

	t.Run("docker cp to a new name", func(t *testing.T) {
		c := serve(t, nil)
		load := c.load("-keepalive")
		docker(t, "cp", v2, c.id+":/app-v2")
		c.crankctl("run", "-wait", "--", "/app-v2")
		answers(c, "v2")
		c.crankctl("rollback")
		answers(c, "v1")
		load.lossless("version v1 ", "version v2 ")
	})
	// docker cp makes a new file in the place of the old one: one that runs can be replaced.
	t.Run("docker cp to the same name", func(t *testing.T) {
		c := serve(t, nil)
		load := c.load("-keepalive")
		docker(t, "cp", v2, c.id+":/app")
		answers(c, "v1")
		c.crankctl("reload")
		answers(c, "v2")
		load.lossless("version v1 ", "version v2 ")
	})
	// A rename on the host, into a directory that the container has mounted.
	t.Run("mounted directory", func(t *testing.T) {
		c := serveFrom(t, v1, v2, true)
		answers(c, "v1")
		c.crankctl("reload")
		answers(c, "v2")
	})
	t.Run("mounted file", func(t *testing.T) {
		c := serveFrom(t, v1, v2, false)
		c.crankctl("reload")
		answers(c, "v1") // the mount is of the file, and not of its name
	})
}

// serveFrom serves v1 from the host, by a mount of its directory or of the file, and then replaces it
// by v2 with a rename.
func serveFrom(t *testing.T, v1, v2 string, directory bool) *container {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, next := filepath.Join(dir, "app"), filepath.Join(dir, ".app.new")
	for link, to := range map[string]string{program: v1, next: v2} {
		if err := os.Link(to, link); err != nil {
			t.Fatal(err)
		}
	}
	mount := program + ":/srv/app:ro"
	if directory {
		mount = dir + ":/srv:ro"
	}
	c := start(t, []string{"--env", "CRANK_BIND=127.0.0.1:8080", "--volume", mount}, images.App, "/srv/app")
	c.ready()
	if err := os.Rename(next, program); err != nil {
		t.Fatal(err)
	}
	return c
}
