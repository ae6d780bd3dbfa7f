//go:build e2e

package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// patience is how long anything may take on a busy machine.
const patience = 3 * time.Minute

// namespace is a namespace of one test, in which Pod Security "restricted" is enforced.
type namespace struct {
	t    *testing.T
	name string
}

// newNamespace makes one that goes with the test.
func newNamespace(t *testing.T) namespace {
	t.Helper()
	test := regexp.MustCompile("[^a-z0-9]+").ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "-")
	n := namespace{t, "crank-e2e-" + strings.Trim(test, "-") + "-" + strings.ToLower(rand.Text()[:6])}
	n.apply(`
apiVersion: v1
kind: Namespace
metadata:
  name: ` + n.name + `
  labels: {crank-e2e: "1", pod-security.kubernetes.io/enforce: restricted}
`)
	t.Cleanup(func() {
		if t.Failed() {
			n.explain()
		}
		n.kubectl("delete", "namespace", n.name, "--wait=false")
	})
	return n
}

// explain logs what there is to see after a failure.
func (n namespace) explain() {
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--selector=app.kubernetes.io/name", "--all-containers", "--prefix", "--tail=40"},
	} {
		out, err := n.try(args...)
		n.t.Logf("kubectl %s\n%s%s", strings.Join(args, " "), out, stderrOf(err))
	}
}

// try runs kubectl in the namespace, and returns its stdout. An error holds its stderr.
func (n namespace) try(args ...string) (string, error) {
	return command("", "kubectl", append([]string{"--namespace=" + n.name}, args...)...)
}

// kubectl is try for what must not fail.
func (n namespace) kubectl(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, stderrOf(err))
	}
	return out
}

func (n namespace) apply(manifest string) {
	n.t.Helper()
	if _, err := command(manifest, "kubectl", "--namespace="+n.name, "apply", "-f", "-"); err != nil {
		n.t.Fatalf("kubectl apply: %v\n%s\n%s", err, stderrOf(err), manifest)
	}
}

// get reads an object, or a list, into what to points to.
func (n namespace) get(to any, args ...string) {
	n.t.Helper()
	out := n.kubectl(append([]string{"get", "-o", "json"}, args...)...)
	if err := unmarshal(out, to); err != nil {
		n.t.Fatalf("kubectl get %v: %v", args, err)
	}
}

func unmarshal(text string, to any) error { return json.Unmarshal([]byte(text), to) }

// command runs a program for a limited time, and returns its stdout.
func command(stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.String(), err
}

// stderrOf is what a command that failed has written.
func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}

// exitCode is that of a command; kubectl exec passes on the one of the command in the container.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// eventually asks until the answer is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("%s: still not so after %v: %v", what, patience, err)
}

// pod is what the tests want to know of a pod.
type pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp string
	}
	Spec struct {
		TerminationGracePeriodSeconds int
		Containers                    []struct{ StartupProbe, ReadinessProbe, LivenessProbe map[string]any }
	}
	Status struct {
		Phase, PodIP      string
		Conditions        []condition
		ContainerStatuses []containerStatus
	}
}

type condition struct {
	Type, Status, Reason string
	LastTransitionTime   time.Time
}

type containerStatus struct {
	Name             string
	RestartCount     int
	State, LastState struct {
		Terminated *struct {
			ExitCode        int
			Reason, Message string
		}
	}
}

func (p pod) ready() condition { return p.condition("Ready") }

// condition returns the zero one where there is none of that type.
func (p pod) condition(kind string) condition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return condition{}
}

func (p pod) restarts() (sum int) {
	for _, c := range p.Status.ContainerStatuses {
		sum += c.RestartCount
	}
	return sum
}

// pods are those of a selector that are not being deleted.
func (n namespace) pods(selector string) []pod {
	n.t.Helper()
	var list struct{ Items []pod }
	n.get(&list, "pods", "--selector="+selector)
	var live []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			live = append(live, p)
		}
	}
	return live
}

// undisturbed checks that a pod is as it was: never not ready, which the time of its last change
// proves, and no container restarted.
func (n namespace) undisturbed(before pod) {
	n.t.Helper()
	after := n.notRestarted(before)
	if was, is := before.ready(), after.ready(); was.Status != "True" || is != was {
		n.t.Errorf("pod %s: Ready is %+v, was %+v", before.Metadata.Name, is, was)
	}
}

// notRestarted checks that a pod is the same one, with the same containers; sidecars do not count.
func (n namespace) notRestarted(before pod) (after pod) {
	n.t.Helper()
	n.get(&after, "pod", before.Metadata.Name)
	if after.Metadata.UID != before.Metadata.UID {
		n.t.Errorf("pod %s is another one", before.Metadata.Name)
	}
	if after.restarts() != before.restarts() {
		n.t.Errorf("pod %s has restarted %d times, before %d", before.Metadata.Name, after.restarts(), before.restarts())
	}
	return after
}

// serviceIP is the address of a Service: names are looked up for every connection, and that is not
// what is tested.
func (n namespace) serviceIP(name string) string {
	n.t.Helper()
	ip := n.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
	if ip == "" {
		n.t.Fatalf("service %s has no address", name)
	}
	return ip
}
