//go:build e2e

package kubernetes

import (
	"fmt"
	"testing"
	"time"
)

// Probes follow the app where they should, and never kill the container because of it.
func TestProbes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"http", "exec"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const warming = 12 * time.Second // longer than liveness would bear
			r := newNamespace(t).start("entrypoint", fmt.Sprintf(`
command: [/app, -ready-after=%v]
crank: {settings: {restart: always}}
probes:
  type: %s
  startup: {periodSeconds: 1, timeoutSeconds: 5}
  readiness: {periodSeconds: 1, timeoutSeconds: 5}
  liveness: {periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 3}
`, warming, kind))
			r.kubectl("rollout", "status", "deployment/"+r.name, "--timeout="+patience.String())
			p := r.pod()
			if started, ready := p.condition("PodReadyToStartContainers"), p.ready(); ready.LastTransitionTime.Sub(started.LastTransitionTime) < warming-time.Second {
				t.Errorf("ready at %v, but the container was not there before %v", ready.LastTransitionTime, started.LastTransitionTime)
			}
			key := map[string]string{"http": "httpGet", "exec": "exec"}[kind]
			c := p.Spec.Containers[0]
			for _, probe := range []map[string]any{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				if probe[key] == nil {
					t.Errorf("a probe has no %s: %v", key, probe)
				}
			}

			if out, err := r.crankctl(p.Metadata.Name, "kill", "-ready", "-signal=KILL"); err != nil {
				t.Fatalf("crankctl kill: %v\n%s%s", err, out, stderrOf(err))
			}
			for _, status := range []string{"False", "True"} {
				r.kubectl("wait", "--for=condition=Ready="+status, "pod/"+p.Metadata.Name, "--timeout="+patience.String())
			}
			var after pod
			r.get(&after, "pod", p.Metadata.Name)
			if after.restarts() != 0 {
				t.Errorf("the container was restarted: %+v", after.Status.ContainerStatuses)
			}
			if now := r.current(p.Metadata.Name); now.Generation != 2 {
				t.Errorf("%+v serves, want generation 2", now)
			}
		})
	}
}
