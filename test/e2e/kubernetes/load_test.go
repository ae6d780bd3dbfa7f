//go:build e2e

package kubernetes

import (
	"bufio"
	"context"
	"os/exec"
	"strings"

	"github.com/crankctl/crank/test/e2e/images"
)

// report is what the load generator prints.
type report struct {
	Requests, Lost int
	Seconds        float64
	Longest        float64 `json:"longest_ms"`
	P99            float64 `json:"p99_ms"`
	Kinds, Answers map[string]int
	Errors         []string
}

// clients are a pod that loads a Service, with new and with kept connections.
type clients struct {
	n    namespace
	logs *bufio.Scanner // of kubectl logs -f
}

// load starts clients and returns once they are being answered. A crank runs them, by which they are
// started when the Service has got about, and stopped.
func (n namespace) load(service string) *clients {
	n.t.Helper()
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: load, labels: {app.kubernetes.io/name: load}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: load
    image: ` + images.App + `
    imagePullPolicy: IfNotPresent
    command: [/crank, -name, load]
    readinessProbe: {exec: {command: [/crankctl, ps]}, periodSeconds: 1, timeoutSeconds: 5}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`)
	n.kubectl("wait", "--for=condition=Ready", "pod/load", "--timeout="+patience.String())
	url := "-url=http://" + n.serviceIP(service)
	eventually(n.t, "the Service answers", func() error {
		_, err := n.try("exec", "load", "--", "/load", "-for=1s", url)
		return err
	})
	n.kubectl("exec", "load", "--", "/crankctl", "run", "-wait", "--", "/load", "-keepalive", url)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // longer than any load lasts
	logs := exec.CommandContext(ctx, "kubectl", "--namespace="+n.name, "logs", "--follow", "load")
	stdout, err := logs.StdoutPipe()
	if err == nil {
		err = logs.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		cancel()
		logs.Wait()
	})
	c := &clients{n, bufio.NewScanner(stdout)}
	c.logs.Buffer(nil, 1<<20)
	c.line("load: running")
	return c
}

// line reads the log until a line that begins with prefix.
func (c *clients) line(prefix string) string {
	c.n.t.Helper()
	for c.logs.Scan() {
		if line := c.logs.Text(); strings.HasPrefix(line, prefix) {
			return line
		}
	}
	c.n.t.Fatalf("the load generator ended without a line %q: %v", prefix, c.logs.Err())
	return ""
}

// stop lets the clients finish what they have begun, and returns their report.
func (c *clients) stop() report {
	c.n.t.Helper()
	c.n.kubectl("exec", "load", "--", "/crankctl", "kill", "-ready", "-signal=TERM")
	var r report
	if err := unmarshal(c.line(`{"requests":`), &r); err != nil {
		c.n.t.Fatal(err)
	}
	c.n.t.Logf("%d requests in %.0f s, %d lost %v, p99 %.1f ms, longest %.0f ms, %d kinds of answers",
		r.Requests, r.Seconds, r.Lost, r.Kinds, r.P99, r.Longest, len(r.Answers))
	return r
}

// nothingLost stops the clients and checks that every request was answered.
func (c *clients) nothingLost() report {
	c.n.t.Helper()
	r := c.stop()
	if r.Lost != 0 {
		c.n.t.Errorf("%d of %d requests were lost: %v\n%s", r.Lost, r.Requests, r.Kinds, strings.Join(r.Errors, "\n"))
	}
	return r
}
