//go:build e2e

package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// A candidate that takes more memory than the limit allows costs itself alone, unless the kubelet has
// the kernel kill all of the container (memory.oom.group, its default with cgroup v2).
//
// The kernel may also kill twice. Once the candidate is dead but before its memory is back, the next
// process that needs some has it choose again, from what is left: exit_mmap sets MMF_OOM_SKIP before
// it frees the pages. Hence a container that was killed is given another chance.
func TestCandidateOutOfMemory(t *testing.T) {
	r := newNamespace(t).install("entrypoint", "resources: {requests: {memory: 64Mi}, limits: {memory: 64Mi}}")
	name := r.pod().Metadata.Name
	const chances = 4
	for range chances {
		before := r.pod()
		serving := r.current(name)
		_, err := r.crankctl(name, "run", "-wait", "--", "/app", "-eat=200")
		t.Logf("crankctl run: %v\n%s", err, stderrOf(err))
		switch {
		case err == nil:
			t.Fatal("the candidate has had the memory")
		case r.oomKillsTheGroup():
			eventually(t, "the container was killed for its memory", func() error { return r.outOfMemory(name) })
			return
		case strings.Contains(stderrOf(err), "killed by SIGKILL before ready"):
			if now := r.current(name); now != serving {
				t.Errorf("%+v serves, want %+v", now, serving)
			}
			r.undisturbed(before)
			return
		}
		eventually(t, "it serves again", func() error {
			_, err := r.crankctl(name, "ready")
			return err
		})
	}
	t.Errorf("more than the candidate was killed, %d times", chances)
}

// outOfMemory is no error where the last container of a pod has ended so.
func (n namespace) outOfMemory(name string) error {
	n.t.Helper()
	var p pod
	n.get(&p, "pod", name)
	for _, c := range p.Status.ContainerStatuses {
		if end := c.LastState.Terminated; end != nil && end.Reason == "OOMKilled" {
			return nil
		}
	}
	return fmt.Errorf("%+v", p.Status)
}

// oomKillsTheGroup asks the kubelet whether memory.oom.group is set for its containers.
func (n namespace) oomKillsTheGroup() bool {
	n.t.Helper()
	node := "/api/v1/nodes/" + n.kubectl("get", "nodes", "-o=jsonpath={.items[0].metadata.name}") + "/proxy/"
	if !strings.Contains(n.kubectl("get", "--raw="+node+"metrics"), "kubelet_cgroup_version 2") {
		return false
	}
	return !strings.Contains(n.kubectl("get", "--raw="+node+"configz"), `"singleProcessOOMKill":true`)
}
