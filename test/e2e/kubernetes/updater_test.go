//go:build e2e

package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/e2e/images"
)

// overlay applies an overlay of deploy/kustomize, with an image for the app, and waits until it is
// ready.
func (n namespace) overlay(name, image string) release {
	n.t.Helper()
	root, err := os.Getwd()
	if err != nil {
		n.t.Fatal(err)
	}
	dir := n.t.TempDir()
	base, err := filepath.Rel(dir, filepath.Join(root, "deploy", "kustomize", "overlays", name))
	if err != nil {
		n.t.Fatal(err)
	}
	rename := func(from, to string) string {
		repository, tag, _ := strings.Cut(to, ":")
		return fmt.Sprintf("  - {name: %s, newName: %s, newTag: %s}\n", from, repository, tag)
	}
	kustomization := "resources: [" + base + "]\nimages:\n" + rename("app", image) + rename("crank", images.Crank)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("apply", "-k", dir)
	n.kubectl("rollout", "status", "deployment/app", "--timeout="+patience.String())
	mode := map[string]string{"plain": "entrypoint", "inject": "inject", "sidecar": "entrypoint"}[name]
	return release{n, "app", mode, "app.kubernetes.io/name=app"}
}

// The overlays work as they are, and their pods can be reloaded in place.
func TestOverlays(t *testing.T) {
	for name, image := range map[string]string{"plain": images.App, "inject": images.Plain} {
		t.Run(name, func(t *testing.T) {
			r := newNamespace(t).overlay(name, image)
			load := r.load(r.name)
			for _, p := range r.pods() {
				if out, err := r.crankctl(p.Metadata.Name, "reload"); err != nil {
					t.Errorf("crankctl reload: %v\n%s%s", err, out, stderrOf(err))
				}
				r.undisturbed(p)
			}
			load.nothingLost()
		})
	}
}

// What the chart's updater puts into the shared volume is run in the app's container.
func TestUpdaterOfTheChart(t *testing.T) {
	r := newNamespace(t).install("entrypoint",
		"updater: {enabled: true, image: {repository: crank-e2e-updater, tag: v2}, command: [sleep, infinity]}")
	load := r.load(r.name)
	before := r.pod()
	const update = "cp /app /updates/.new && mv /updates/.new /updates/app-2 && /crank-bin/crankctl run -wait -- /updates/app-2"
	r.kubectl("exec", before.Metadata.Name, "--container=updater", "--", "sh", "-c", update)
	if report := load.nothingLost(); !strings.Contains(fmt.Sprint(report.Answers), "version v2 generation 2") {
		t.Errorf("no answer of the new version: %v", report.Answers)
	}
	r.undisturbed(before)
}

// A sidecar with a new image replaces the app's binary; the app's container stays.
func TestUpdaterSidecar(t *testing.T) {
	r := newNamespace(t).overlay("sidecar", images.Updater)
	load := r.load(r.name)
	for _, before := range r.pods() {
		name := before.Metadata.Name
		r.kubectl("set", "image", "pod/"+name, "updater="+images.UpdaterV2)
		eventually(t, "the new version serves", func() error {
			if now := r.current(name); now.Generation != 2 {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		r.notRestarted(before) // the kubelet may say that the pod is not ready while the sidecar starts anew
	}
	if report := load.nothingLost(); !strings.Contains(fmt.Sprint(report.Answers), "version v2 generation 2") {
		t.Errorf("no answer of the new version: %v", report.Answers)
	}
}
