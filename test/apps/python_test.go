package apps

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/markdown"
)

// An app whose handler of TERM starts a thread hangs when the signal comes at the wrong moment, and with it the
// connection that was just accepted. That was seen under load, in one of some hundred swaps.
func TestPythonIsInterrupted(t *testing.T) {
	p := program{file: "app.py", needs: []string{"python3"}, debian: "python3"}
	p.installed(t)
	interrupted, err := filepath.Abs(filepath.Join("testdata", "interrupted"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("python3", "-c", "import threading; threading._maintain_shutdown_locks").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED, only before Python 3.13: %s", out)
	}
	t.Setenv("PYTHONPATH", interrupted)
	for name, source := range map[string]string{
		document:          drainFor(t, markdown.Block(t, document, "Python", "python"), 600),
		"../../README.md": markdown.Block(t, "../../README.md", "", "python"),
	} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			i := instance.Start(t, bin, []string{"-stop", "900s"}, p.save(t, source)...)
			load := hammer.Start(hammer.Load{Network: "tcp", Address: i.Address, Short: 1, Pause: time.Millisecond, Timeout: patience})
			i.Wait() // the signal comes once the thread of an earlier connection has ended
			load.Stop()
		})
	}
}
