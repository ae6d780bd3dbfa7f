//go:build e2e

package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// chart is where the chart is, seen from the root of the repository.
const chart = "helm/crank"

// base are the values that all tests have in common, by mode.
var base = map[string]string{
	"entrypoint": `
mode: entrypoint
image: {repository: crank-e2e-app, tag: v1}
crank: {image: {repository: crank, tag: e2e}}
binds: [{name: http, port: 8080, servicePort: 80}]
probes: {readiness: {periodSeconds: 1, failureThreshold: 1}}
`,
	"inject": `
mode: inject
image: {repository: crank-e2e-plain, tag: v1}
command: [/app]
crank: {image: {repository: crank, tag: e2e}}
binds: [{name: http, port: 8080, servicePort: 80}]
probes: {readiness: {periodSeconds: 1, failureThreshold: 1}}
`,
}

// release is an app that is deployed, by the chart or an overlay. The Deployment and the Service have
// its name.
type release struct {
	namespace
	name, mode, selector string
}

// install installs the chart with the values of a mode, changed by more of them, and waits until all
// pods are ready.
func (n namespace) install(mode, more string) release {
	n.t.Helper()
	r := n.start(mode, more)
	r.kubectl("rollout", "status", "deployment/"+r.name, "--timeout="+patience.String())
	return r
}

// start is install without the waiting.
func (n namespace) start(mode, more string) release {
	n.t.Helper()
	r := release{n, "web", mode, "app.kubernetes.io/instance=web"}
	r.helm(more, "install", r.name, chart)
	return r
}

// upgrade changes values and waits for the rolling update.
func (r release) upgrade(more string) {
	r.t.Helper()
	r.helm(more, "upgrade", r.name, chart)
	r.kubectl("rollout", "status", "deployment/"+r.name, "--timeout="+patience.String())
}

func (r release) helm(more string, args ...string) {
	r.t.Helper()
	values := filepath.Join(r.t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(base[r.mode]+"fullnameOverride: "+r.name+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	args = append(args, "--namespace="+r.namespace.name, "--values="+values, "--values=-")
	if out, err := command(more, "helm", args...); err != nil {
		r.t.Fatalf("helm %s: %v\n%s%s", strings.Join(args, " "), err, out, stderrOf(err))
	}
}

// pods are those of the release.
func (r release) pods() []pod {
	r.t.Helper()
	return r.namespace.pods(r.selector)
}

// pod is the only one.
func (r release) pod() pod {
	r.t.Helper()
	pods := r.pods()
	if len(pods) != 1 {
		r.t.Fatalf("%d pods, want one", len(pods))
	}
	return pods[0]
}

// crankctl runs crankctl in the app's container of a pod.
func (r release) crankctl(pod string, args ...string) (stdout string, err error) {
	crankctl := map[string]string{"entrypoint": "/crankctl", "inject": "/crank-bin/crankctl"}[r.mode]
	return r.try(append([]string{"exec", pod, "--", crankctl}, args...)...)
}

// generation is one as crankctl ps prints it.
type generation struct {
	Generation, PID int
	State           string
}

// current is the generation that serves in a pod; there must be one.
func (r release) current(pod string) generation {
	r.t.Helper()
	out, err := r.crankctl(pod, "ps", "-ready", "-o=json")
	var all []generation
	if err == nil {
		err = unmarshal(out, &all)
	}
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d generations are ready", len(all))
	}
	if err != nil {
		r.t.Fatalf("crankctl ps in %s: %v\n%s%s", pod, err, out, stderrOf(err))
	}
	return all[0]
}

// ask asks the app in a pod, from within its container.
func (r release) ask(pod string) (answer string, err error) {
	return r.try("exec", pod, "--", "/load", "-get=http://127.0.0.1:8080/")
}

// bothModes runs a test once in each mode of the chart.
func bothModes(t *testing.T, test func(t *testing.T, mode string)) {
	for mode := range base {
		t.Run(mode, func(t *testing.T) { test(t, mode) })
	}
}

// metric scrapes a pod from within, and returns the value of a metric without labels.
func (r release) metric(pod, name string) float64 {
	r.t.Helper()
	page := r.kubectl("exec", pod, "--", "/load", "-get=http://127.0.0.1:9090/metrics")
	for line := range strings.Lines(page) {
		var value float64
		if _, err := fmt.Sscanf(line, name+" %g", &value); err == nil {
			return value
		}
	}
	r.t.Fatalf("no metric %s in\n%s", name, page)
	return 0
}
