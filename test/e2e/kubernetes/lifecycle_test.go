//go:build e2e

package kubernetes

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A rolling update loses nothing either, since pods go on serving for -drain-delay while the endpoints
// are changed, and then finish what they have begun.
func TestRollingUpdate(t *testing.T) {
	bothModes(t, func(t *testing.T, mode string) {
		r := newNamespace(t).install(mode, "replicas: 2")
		load := r.load(r.name)
		before := r.pods()
		r.upgrade("{replicas: 2, image: {tag: v2}}")
		for _, p := range before {
			r.kubectl("wait", "--for=delete", "pod/"+p.Metadata.Name, "--timeout="+patience.String())
		}
		report := load.nothingLost()
		for _, version := range []string{"version v1 ", "version v2 "} {
			if !strings.Contains(fmt.Sprint(report.Answers), version) {
				t.Errorf("no answer of %s: %v", version, report.Answers)
			}
		}
	})
}

// A pod that is deleted finishes a request of several seconds, and is gone within its grace period.
func TestPodDeletion(t *testing.T) {
	r := newNamespace(t).install("entrypoint", "replicas: 2") // so that the Service goes on
	load := r.load(r.name)
	p := r.pods()[0]
	grace := time.Duration(p.Spec.TerminationGracePeriodSeconds) * time.Second

	answered := make(chan error, 1)
	go func() {
		url := "http://" + net.JoinHostPort(p.Status.PodIP, "8080") + "/?delay=8s"
		out, err := r.try("exec", "load", "--", "/load", "-timeout=1m", "-get="+url)
		if err == nil && !strings.Contains(out, "generation 1") {
			err = fmt.Errorf("it is %q", out)
		}
		answered <- err
	}()
	eventually(t, "the request is in flight", func() error {
		if out := r.kubectl("logs", p.Metadata.Name); !strings.Contains(out, "delaying 8s") {
			return fmt.Errorf("log: %s", out)
		}
		return nil
	})

	end := r.watchEnd(p)
	asked := time.Now()
	r.kubectl("delete", "pod", p.Metadata.Name)
	if gone := time.Since(asked); gone > grace {
		t.Errorf("the pod was gone after %v, its grace period is %v", gone, grace)
	} else {
		t.Logf("the pod was gone after %v of %v", gone.Round(100*time.Millisecond), grace)
	}
	if err := <-answered; err != nil {
		t.Errorf("the answer: %v %s", err, stderrOf(err))
	}
	if got := end(); got != "0 Completed" {
		t.Errorf("the container ended with %q, want \"0 Completed\"", got)
	}
	load.nothingLost()
}

// watchEnd returns a function that tells, after the pod is gone, the exit code of its first container
// and the reason.
func (n namespace) watchEnd(p pod) func() string {
	n.t.Helper()
	var out strings.Builder
	cmd := exec.Command("kubectl", "--namespace="+n.name, "get", "pod", p.Metadata.Name, "--watch", "-o",
		`jsonpath={.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}{"\n"}`)
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	stop := func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	n.t.Cleanup(stop)
	return func() string {
		stop()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return strings.TrimSpace(lines[len(lines)-1])
	}
}

// What crankctl run has put in place outlives the container, but not the pod.
func TestRestartKeepsUpdate(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode string) {
		t.Parallel()
		r := newNamespace(t).install(mode, "")
		p := r.pod()
		name := p.Metadata.Name
		if out, err := r.crankctl(name, "run", "-wait", "--", "/app", "-body=updated"); err != nil {
			t.Fatalf("crankctl run: %v\n%s%s", err, out, stderrOf(err))
		}
		r.crankctl(name, "kill", "-ready", "-signal=KILL") // which crank follows, and this exec as well
		eventually(t, "the container was started again", func() error {
			var now pod
			r.get(&now, "pod", name)
			if now.restarts() != 1 || now.ready().Status != "True" {
				return fmt.Errorf("%+v", now.Status)
			}
			return nil
		})
		if out, err := r.ask(name); err != nil || out != "version v1 updated" {
			t.Errorf("after a restart of the container: %q, %v %s", out, err, stderrOf(err))
		}
		r.kubectl("delete", "pod", name)
		r.kubectl("rollout", "status", "deployment/"+r.name, "--timeout="+patience.String())
		if out, err := r.ask(r.pod().Metadata.Name); err != nil || !strings.Contains(out, "generation 1 ") {
			t.Errorf("in a new pod: %q, %v %s", out, err, stderrOf(err))
		}
	})
}

// Why an app failed is said where Kubernetes shows it.
func TestTerminationMessage(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode string) {
		t.Parallel()
		r := newNamespace(t).start(mode, `command: [/app, -exit=3, "-stderr=cannot reach the database"]`)
		eventually(t, "the reason is in the pod's status", func() error {
			const path = "{range .items[*].status.containerStatuses[*]}{.state.terminated.message}{.lastState.terminated.message}{end}"
			out := r.kubectl("get", "pods", "-o", "jsonpath="+path)
			for _, want := range []string{"exited 3", "cannot reach the database"} {
				if !strings.Contains(out, want) {
					return fmt.Errorf("message: %q", out)
				}
			}
			return nil
		})
	})
}

// With shareProcessNamespace crank is not PID 1, and swaps and reaps all the same.
func TestShareProcessNamespace(t *testing.T) {
	r := newNamespace(t).install("entrypoint", "{shareProcessNamespace: true, command: [/app, -orphans=5, -orphan-life=1s]}")
	load := r.load(r.name)
	before := r.pod()
	name := before.Metadata.Name
	var info struct{ PID int }
	if out, err := r.crankctl(name, "info", "-o=json"); err != nil || unmarshal(out, &info) != nil || info.PID <= 1 {
		t.Errorf("crank's pid is %d, want any but 1: %v\n%s%s", info.PID, err, out, stderrOf(err))
	}
	if out, err := r.crankctl(name, "reload"); err != nil {
		t.Errorf("crankctl reload: %v\n%s%s", err, out, stderrOf(err))
	}
	eventually(t, "the orphans of the first generation were reaped", func() error {
		if reaped := r.metric(name, "crank_reaped_processes_total"); reaped < 5 {
			return fmt.Errorf("%v processes were reaped", reaped)
		}
		return nil
	})
	load.nothingLost()
	r.undisturbed(before)
}
