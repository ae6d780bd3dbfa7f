//go:build e2e

package docker

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestStopDrains: docker stop waits for a request that is under way, and no longer. The clients are in
// containers of their own, since docker stop ends all that runs in the app's.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	c := serve(t, nil)
	client := c.client("load: asked", "-get", url+"/?delay=4s", "-timeout", "1m")
	began := time.Now()
	docker(t, "stop", "--time", "60", c.id)
	if took := time.Since(began); took > 50*time.Second {
		t.Errorf("docker stop took %v: it killed", took)
	}
	if code := c.wait(); code != "0" {
		t.Errorf("exit code %s", code)
	}
	if code, logs := client.wait(), client.logs(); code != "0" || !strings.Contains(logs.stdout, "generation 1 ") {
		t.Errorf("the client had exit code %s, answer %q, %s", code, logs.stdout, logs.stderr)
	}
}

// TestHangupSwaps: docker kill -s HUP is a swap, and no client notices.
func TestHangupSwaps(t *testing.T) {
	c := serve(t, nil)
	load := c.load("-keepalive")
	for n := range 3 {
		docker(t, "kill", "--signal", "HUP", c.id)
		c.eventually("swapped", func() error {
			if g := c.current().Generation; g != n+2 {
				return fmt.Errorf("generation %d serves", g)
			}
			return nil
		})
	}
	load.lossless("generation 1 ", "generation 2 ", "generation 3 ")
}

// TestExecReload: docker exec ... crankctl reload, ten times under load, with slow requests that
// outlast a swap. A broken version then changes nothing, and says why it failed.
func TestExecReload(t *testing.T) {
	c := serve(t, []string{"--env", "CRANK_SETTLE=0.4"})
	load := c.load("-keepalive", "-slow", "3s")
	for n := range 10 {
		out := c.crankctl("reload")
		if want := fmt.Sprintf("swapped app %d -> %d", n+1, n+2); !strings.Contains(out, want) {
			t.Errorf("crankctl reload prints %q, want %q", out, want)
		}
	}
	before := c.current()
	out, code := c.exec("/crankctl", "run", "-wait", "--", "/app", "-exit", "3", "-exit-after", "0", "-stderr", "settings: no such key: colour")
	if code != 1 {
		t.Errorf("a broken version: exit code %d", code)
	}
	for _, want := range []string{"exited 3 before ready", "settings: no such key: colour", fmt.Sprintf("generation 11 (pid %d) still serving", before.PID)} {
		if !strings.Contains(out.stderr, want) {
			t.Errorf("stderr of crankctl has no %q:\n%s", want, out.stderr)
		}
	}
	if after := c.current(); after != before {
		t.Errorf("%+v serves, %+v did before", after, before)
	}
	if restarts := c.inspect("{{.RestartCount}} {{.State.Status}}"); restarts != "0 running" {
		t.Errorf("restarts and state: %s", restarts)
	}
	var answers []string
	for n := range 11 {
		answers = append(answers, "generation "+strconv.Itoa(n+1)+" ")
	}
	if r := load.lossless(answers...); r.Slow < 3 {
		t.Errorf("only %d slow requests", r.Slow)
	}
}
