package layout

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unguarded are packages whose tests start programs without a guard.
var unguarded = []string{
	"test/processes",      // the guard uses it; what its tests start ends with them
	"test/e2e/docker",     // the engine runs the containers
	"test/e2e/kubernetes", // likewise
}

// TestGuarded: tests that start programs run under a guard, so that they do not depend on how they were started and leave nothing behind.
func TestGuarded(t *testing.T) {
	starts := regexp.MustCompile(`"os/exec"|\bos\.StartProcess\(|\bsyscall\.ForkExec\(|\bprograms\.`)
	guards := regexp.MustCompile(`\bguard\.Enter\(|\bMain\(m\b`)
	started, guarded := map[string]bool{}, map[string]bool{}
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		dir := strings.TrimPrefix(filepath.Dir(path), root+"/")
		started[dir] = started[dir] || starts.Match(content)
		guarded[dir] = guarded[dir] || guards.Match(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(started) < 30 {
		t.Fatalf("only %d packages have tests", len(started))
	}
	for _, dir := range slices.Sorted(maps.Keys(started)) {
		if started[dir] && !guarded[dir] && !slices.Contains(unguarded, dir) {
			t.Errorf("the tests of %s start programs without a guard: call guard.Main in TestMain", dir)
		}
	}
}
