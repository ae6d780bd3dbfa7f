package config

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files and the documents that are printed from the table")

func TestUsage(t *testing.T) {
	usage := Usage()
	for _, line := range strings.Split(usage, "\n") {
		if len(line) > width || strings.TrimRight(line, " ") != line {
			t.Errorf("longer than %d columns, or ends with a space: %q", width, line)
		}
	}
	for _, s := range settings {
		if !strings.Contains(usage, "-"+s.Flag) {
			t.Errorf("-%s is missing", s.Flag)
		}
	}
	golden(t, "testdata/usage.golden", usage)
}

// The arguments in the examples must be ones that Load accepts.
func TestExamples(t *testing.T) {
	for _, e := range examples {
		line, ok := strings.CutPrefix(e.line, "crank ")
		if !ok {
			continue
		}
		if c, err := Load(strings.Fields(line)); err != nil || len(c.Command) == 0 {
			t.Errorf("%s: %v", e.line, err)
		}
	}
}

func TestManPage(t *testing.T) { golden(t, "../../docs/man/crank.1", ManPage()) }

// The tables stand between two marks in a document that is otherwise written by hand.
func TestMarkdown(t *testing.T) {
	const (
		path  = "../../docs/configuration.md"
		begin = "<!-- The tables of settings are printed from pkg/config: go test ./pkg/config -update -->\n"
		end   = "<!-- end of the tables of settings -->\n"
	)
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(document), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has not both marks:\n%s%s", path, begin, end)
	}
	golden(t, path, before+begin+"\n"+Markdown()+end+after)
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if *update && !bytes.Equal(want, []byte(got)) {
		err = os.WriteFile(path, []byte(got), 0o644)
		want = []byte(got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what is printed now (go test ./pkg/config -update):\n%s", path, diff)
	}
}
