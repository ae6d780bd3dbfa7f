//go:build e2e

package kubernetes

import (
	"strings"
	"testing"
)

// The loop that NOTES.txt prints reloads every pod, one after another, and stops at the first failure.
func TestNotesReload(t *testing.T) {
	bothModes(t, func(t *testing.T, mode string) {
		r := newNamespace(t).install(mode, "{replicas: 2, command: [/app], crank: {settings: {maxDraining: 1}}}")
		loop := r.note("Reload every pod in place")
		load := r.load(r.name)
		pods := r.pods()

		out, err := command("", "sh", "-c", loop)
		t.Logf("%s\n%s", loop, out)
		if err != nil || strings.Count(out, "swapped ") != len(pods) {
			t.Errorf("the loop: %v\n%s%s", err, out, stderrOf(err))
		}
		for _, p := range pods {
			if now := r.current(p.Metadata.Name); now.Generation != 2 {
				t.Errorf("pod %s is at %+v, want generation 2", p.Metadata.Name, now)
			}
		}

		// The pod that comes first has a generation that does not leave, so that the next reload is refused.
		first, second := r.order(out, pods)
		for _, args := range []string{"run -wait -- /app -ignore-term", "reload"} {
			if out, err := r.crankctl(first.Metadata.Name, strings.Fields(args)...); err != nil {
				t.Fatalf("crankctl %s: %v\n%s%s", args, err, out, stderrOf(err))
			}
		}
		out, err = command("", "sh", "-c", loop)
		if exitCode(err) != 4 || !strings.Contains(out, first.Metadata.Name) || strings.Contains(out, second.Metadata.Name) {
			t.Errorf("the loop with a pod that refuses: %v, want exit status 4 after the first pod\n%s%s", err, out, stderrOf(err))
		}
		if now := r.current(second.Metadata.Name); now.Generation != 2 {
			t.Errorf("the second pod was reached: %+v", now)
		}
		load.nothingLost()
		for _, p := range pods {
			r.undisturbed(p)
		}
	})
}

// order tells which of two pods is named first.
func (r release) order(text string, pods []pod) (first, second pod) {
	r.t.Helper()
	if len(pods) != 2 {
		r.t.Fatalf("%d pods, want two", len(pods))
	}
	if strings.Index(text, pods[0].Metadata.Name) > strings.Index(text, pods[1].Metadata.Name) {
		return pods[1], pods[0]
	}
	return pods[0], pods[1]
}

// note returns the first command that helm's notes have below a paragraph.
func (r release) note(paragraph string) string {
	r.t.Helper()
	notes, err := command("", "helm", "get", "notes", r.name, "--namespace="+r.namespace.name)
	if err != nil {
		r.t.Fatalf("helm get notes: %v %s", err, stderrOf(err))
	}
	_, below, _ := strings.Cut(notes, paragraph)
	for line := range strings.Lines(below) {
		if line, indented := strings.CutPrefix(line, "    "); indented {
			return strings.TrimSpace(line)
		}
	}
	r.t.Fatalf("no command below %q in\n%s", paragraph, notes)
	return ""
}

// helm test finds the app through its Service.
func TestHelmTest(t *testing.T) {
	bothModes(t, func(t *testing.T, mode string) {
		r := newNamespace(t).install(mode, "test: {path: /}")
		if out, err := command("", "helm", "test", r.name, "--namespace="+r.namespace.name, "--timeout="+patience.String()); err != nil {
			t.Errorf("helm test: %v\n%s%s", err, out, stderrOf(err))
		}
	})
}
