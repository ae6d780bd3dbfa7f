package markdown

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSplice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte("before\nBEGIN\nold\nEND\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"new\n", "newer\n"} {
		if err := Splice(path, "BEGIN", "END", text); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != "before\nBEGIN\n"+text+"END\nafter\n" {
			t.Errorf("got %q", got)
		}
	}
	os.WriteFile(path, []byte("nothing"), 0o644)
	if err := Splice(path, "BEGIN", "END", "new\n"); err == nil {
		t.Error("no error without the lines")
	}
}
