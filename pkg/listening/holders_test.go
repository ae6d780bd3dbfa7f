package listening

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestEachName: it visits all names, however many there are, and none after the last one wanted.
func TestEachName(t *testing.T) {
	dir := t.TempDir()
	const many = 2*namesAtATime + 1
	for i := range many {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, wanted := range []int{1, namesAtATime, namesAtATime + 1, many} {
		seen := map[string]bool{}
		err := eachName(dir, func(name string) bool {
			seen[name] = true
			return len(seen) < wanted
		})
		if err != nil || len(seen) != wanted {
			t.Errorf("%d of %d, %v", len(seen), wanted, err)
		}
	}
	if err := eachName(filepath.Join(dir, "none"), func(string) bool { return true }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
