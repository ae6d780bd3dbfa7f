//go:build e2e

// Package kubernetes tests crank and its chart on a real cluster: the one that kubectl reaches.
//
// CRANK_E2E_LOAD_IMAGE is a command that takes names of images that docker has and brings them into
// the cluster ("kind load docker-image", "minikube image load"). Where it is given, the images are
// built first; without it they are taken to be there.
package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/e2e/images"
)

func TestMain(m *testing.M) {
	code, err := setUp()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// setUp returns the exit code where the tests cannot run.
func setUp() (int, error) {
	if out, err := exec.Command("kubectl", "get", "--raw=/readyz", "--request-timeout=10s").CombinedOutput(); err != nil {
		missing := fmt.Errorf("NOT TESTED: no Kubernetes cluster answers: %w %s", err, strings.TrimSpace(string(out)))
		if os.Getenv("REQUIRE_E2E") != "" {
			return 1, missing
		}
		return 0, missing
	}
	root, err := images.Root()
	if err != nil {
		return 1, err
	}
	load := strings.Fields(os.Getenv("CRANK_E2E_LOAD_IMAGE"))
	if len(load) > 0 {
		if err := images.Build(images.All...); err != nil {
			return 1, err
		}
		if out, err := exec.Command(load[0], append(load[1:], images.All...)...).CombinedOutput(); err != nil {
			return 1, fmt.Errorf("cannot load the images into the cluster: %w\n%s", err, out)
		}
	}
	return 0, os.Chdir(root) // where helm/ and deploy/ are
}
