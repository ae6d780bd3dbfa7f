//go:build e2e

package docker

import (
	"strings"
	"testing"
)

// TestSeccompProfile: with the profile of deploy/seccomp, and as little else as there can be, an app is swapped under load, a broken
// version is kept out, and the end is as always.
func TestSeccompProfile(t *testing.T) {
	c := serve(t, []string{
		"--security-opt", "seccomp=../../../deploy/seccomp/crank.json", "--security-opt", "no-new-privileges", "--cap-drop", "ALL",
		"--user", "12345:12345", "--read-only", "--env", "CRANK_NO_NEW_PRIVS=true", "--env", "CRANK_SETTLE=0.2",
	})
	if got := docker(t, "inspect", "--format", "{{json .HostConfig.SecurityOpt}}", c.id); !strings.Contains(got, "clone3") {
		t.Fatalf("the container has another profile: %.200s", got)
	}
	load := c.load("-keepalive")
	for range 3 {
		c.crankctl("reload")
	}
	docker(t, "kill", "--signal", "HUP", c.id)
	c.crankctl("wait", "-generation", "5")
	if out, code := c.exec("/crankctl", "run", "-wait", "--", "/app", "-exit", "3", "-exit-after", "0"); code != 1 {
		t.Errorf("a broken version: exit code %d, %v", code, out)
	}
	load.lossless("generation 1 ", "generation 5 ")
	docker(t, "stop", "--time", "60", c.id)
	if code := c.wait(); code != "0" {
		t.Errorf("exit code %s", code)
	}
}
