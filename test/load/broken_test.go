package load

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/demo/hammer"
)

// broken is a version that must not get to serve.
type broken struct {
	name   string
	start  string   // its -start
	flags  []string // of the app
	argv   []string // in the place of the app
	reason string   // what the outcome says
}

// garbage is executable, but no program.
const garbage = "./garbage"

// candidates is how many of each kind are tried. Those that are never ready take a while each.
const candidates = 50

// None of them has accepted anything, so nothing at all is lost.
var kindsOfBroken = []broken{
	{name: "not found", argv: []string{"/nowhere/app"}, reason: "no such file"},
	{name: "exec error", argv: []string{garbage}, reason: "exec format"},
	{name: "exit 0", flags: []string{"-exit", "0"}, reason: "exited 0"},
	{name: "exit 3", flags: []string{"-exit", "3"}, reason: "exited 3"},
	{name: "killed", flags: []string{"-die", "SEGV", "-never-ready"}, reason: "SIGSEGV"},
	{name: "never ready", start: "300ms", flags: []string{"-never-ready"}, reason: "not ready"},
	{name: "dies while settling", flags: []string{"-exit", "4", "-exit-when-settling"}, reason: "exited 4"},
	{name: "says it failed", flags: []string{"-fail", "no database"}, reason: "no database"},
}

// Whatever is wrong with a candidate, the same process serves on and no request is lost.
func TestBrokenCandidates(t *testing.T) {
	t.Parallel() // most of it is waiting
	i := start(t, []string{"-settle", "60s"}, app()...)
	i.load()
	i.traffic(200)
	for range candidates {
		for _, b := range kindsOfBroken {
			i.kept(b)
		}
	}
	i.traffic(200)
	if report := i.stop(); len(report.Bodies) != 1 {
		t.Errorf("answers came from %d versions: %v", len(report.Bodies), report.Bodies)
	}
}

// A candidate that accepts and dies while it settles costs at most what it has accepted.
func TestDiesAccepting(t *testing.T) {
	i := start(t, []string{"-settle", "60s"}, app()...)
	i.load()
	i.traffic(200)
	accepted := 0
	for range candidates {
		result := i.kept(broken{
			name:   "dies while settling",
			flags:  []string{"-exit", "4", "-exit-when-settling", "-exit-after", "20ms", "-print-accepted"},
			reason: "exited 4",
		})
		var n int
		if _, err := fmt.Sscanf(strings.Join(result.Stderr, "\n"), "accepted %d", &n); err != nil {
			t.Fatalf("stderr %q: %v", result.Stderr, err)
		}
		accepted += n
	}
	if accepted == 0 {
		t.Error("no candidate has accepted anything")
	}
	i.lost = accepted
	i.traffic(200)
	report := i.stop()
	if cut := report.Kinds[hammer.Reset] + report.Kinds[hammer.EOF]; cut != report.Lost {
		t.Errorf("%d requests were lost, only %d of them on a connection: %v", report.Lost, cut, report.Kinds)
	}
	t.Logf("%d candidates had accepted %d connections; %d requests were lost", candidates, accepted, report.Lost)
}

// kept runs a broken version, which must fail and leave the one that serves alone.
func (i *instance) kept(b broken) *control.Result {
	i.t.Helper()
	generation, pid := i.current()
	argv := app(b.flags...)
	if b.argv != nil {
		argv = b.argv
	}
	result := i.run(control.RunRequest{Start: b.start, Cwd: i.dir}, argv...)
	if result.OK || result.Current != generation || result.CurrentPID != pid {
		i.t.Fatalf("%s: generation %d (pid %d) should serve on: %+v", b.name, generation, pid, result)
	}
	if !strings.Contains(result.Reason, b.reason) {
		i.t.Errorf("%s: reason is %q, want %q", b.name, result.Reason, b.reason)
	}
	i.failed++
	return result
}
