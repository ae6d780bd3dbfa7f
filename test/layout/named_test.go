package layout

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// SECURITY.md says for each threat which test shows that it is stopped, and docs/guarantees.md for each promise which test shows
// that it is kept. The tests have to be there, in the package that is named before them.
func TestNamedTests(t *testing.T) {
	known, err := everyTest()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../../SECURITY.md", "../../docs/guarantees.md"} {
		document, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var in string
		named := regexp.MustCompile(`\b(?:pkg|cmd|test)/[a-z0-9/]+|\b(?:Test|Fuzz)[A-Z]\w+|[a-z0-9_]+\.txtar`).FindAllString(string(document), -1)
		if len(named) < 40 {
			t.Errorf("%s names only %d tests", path, len(named))
		}
		for _, name := range named {
			switch {
			case strings.Contains(name, "/"):
				in = name
			case strings.HasSuffix(name, ".txtar") && !known[name], !strings.HasSuffix(name, ".txtar") && !known[in+" "+name]:
				t.Errorf("%s: there is no %s in %s", path, name, in)
			}
		}
	}
}

// everyTest returns the stories by their names, and the tests by their package and name.
func everyTest() (map[string]bool, error) {
	known := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".txtar") {
			known[filepath.Base(path)] = true
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(content, -1) {
			known[strings.TrimPrefix(filepath.Dir(path), root+"/")+" "+string(m[1])] = true
		}
		return err
	})
	return known, err
}
