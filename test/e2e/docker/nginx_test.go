//go:build e2e

package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nginx starts Debian's nginx under crank.
func nginx(t *testing.T) *container {
	t.Helper()
	c := start(t, nil, build(t, "nginx"))
	c.ctl = "crankctl"
	c.ready()
	return c
}

// TestNginx: nginx as Debian has it, under crank. A new configuration is swapped in under load; one that
// is wrong changes nothing.
func TestNginx(t *testing.T) {
	c := nginx(t)
	load := c.load()
	for range 3 {
		c.crankctl("reload")
	}
	configuration, err := os.ReadFile("testdata/nginx/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	c.configure(strings.Replace(string(configuration), "version 1", "version 2", 1))
	c.crankctl("reload")

	c.configure(strings.Replace(string(configuration), "keepalive_timeout", "colour", 1))
	out, code := c.exec("crankctl", "reload")
	if code != 1 || !strings.Contains(out.stderr, `unknown directive "colour"`) || !strings.Contains(out.stderr, "still serving") {
		t.Errorf("a wrong configuration: exit code %d\n%s", code, out.stderr)
	}
	r := load.lossless("version 1\n", "version 2\n")
	if len(r.Answers) != 2 {
		t.Errorf("answers %v", r.Answers)
	}
	docker(t, "stop", "--time", "60", c.id)
	if code := c.wait(); code != "0" {
		t.Errorf("exit code %s", code)
	}
}

// configure replaces the configuration.
func (c *container) configure(text string) {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "nginx.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	docker(c.t, "cp", path, c.id+":/etc/nginx/nginx.conf")
}
