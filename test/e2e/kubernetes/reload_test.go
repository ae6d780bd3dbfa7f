//go:build e2e

package kubernetes

import (
	"strings"
	"testing"
)

// 20 reloads of a running pod lose nothing, and Kubernetes does not even notice them.
func TestReloadInPlace(t *testing.T) {
	bothModes(t, func(t *testing.T, mode string) {
		const reloads = 20
		r := newNamespace(t).install(mode, "")
		load := r.load(r.name)
		before := r.pod()
		for want := 2; want < reloads+2; want++ {
			out, err := r.crankctl(before.Metadata.Name, "reload", "-o=json")
			var result struct {
				OK      bool
				Current int
			}
			if err == nil {
				err = unmarshal(out, &result)
			}
			if err != nil || !result.OK || result.Current != want {
				t.Fatalf("crankctl reload: %v, want generation %d to serve\n%s%s", err, want, out, stderrOf(err))
			}
		}
		report := load.nothingLost()
		if len(report.Answers) != reloads+1 {
			t.Errorf("answers of %d generations, want %d: %v", len(report.Answers), reloads+1, report.Answers)
		}
		r.undisturbed(before)
	})
}

// A version that cannot start fails on the terminal of whoever tried it, and nowhere else.
func TestBrokenVersion(t *testing.T) {
	bothModes(t, func(t *testing.T, mode string) {
		r := newNamespace(t).install(mode, "")
		load := r.load(r.name)
		before := r.pod()
		serving := r.current(before.Metadata.Name)
		for _, tt := range []struct{ command, reason string }{
			{"-- /app -exit 3 -stderr ModuleNotFoundError", "exited 3 before ready\n  | ModuleNotFoundError\n"},
			{"-- /app-v2", "no such file or directory"},
			{"-start 1s -- /app -never-ready", "not ready in time (1s)"},
			{"-- /app -die KILL", "SIGKILL"},
			{"-- /app -fail no-database", "no-database"},
		} {
			out, err := r.crankctl(before.Metadata.Name, append([]string{"run", "-wait"}, strings.Fields(tt.command)...)...)
			if exitCode(err) != 1 || !strings.Contains(stderrOf(err), tt.reason) {
				t.Errorf("crankctl run %s: %v, want exit status 1 and %q\n%s%s", tt.command, err, tt.reason, out, stderrOf(err))
			}
			if now := r.current(before.Metadata.Name); now != serving {
				t.Errorf("after crankctl run %s %+v serves, want %+v", tt.command, now, serving)
			}
		}
		load.nothingLost()
		r.undisturbed(before)
	})
}
