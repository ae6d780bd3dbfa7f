//go:build e2e

package kubernetes

import (
	"strings"
	"testing"

	"github.com/crankctl/crank/test/e2e/images"
)

// The namespaces of these tests do refuse pods that are less than "restricted", so that what runs
// in them is.
func TestRestrictedIsEnforced(t *testing.T) {
	n := newNamespace(t)
	_, err := n.try("run", "privileged", "--image="+images.App, "--privileged")
	if err == nil || !strings.Contains(stderrOf(err), `violates PodSecurity "restricted`) {
		t.Errorf("a privileged pod: %v %s", err, stderrOf(err))
	}
	_, err = n.try("run", "plain", "--image="+images.App)
	if err == nil || !strings.Contains(stderrOf(err), `violates PodSecurity "restricted`) {
		t.Errorf("a pod with no security context: %v %s", err, stderrOf(err))
	}
}
