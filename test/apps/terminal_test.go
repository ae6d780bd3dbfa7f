package apps

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/ports"
)

// interrupt runs an app in the foreground of a terminal and presses Ctrl-C.
func (p program) interrupt(t *testing.T, command []string) {
	line := slices.Concat([]string{"crank", "-bind", "127.0.0.1:0"}, p.flags, []string{"--"}, command)
	instance.Interrupt(t, bin, t.TempDir(), strings.Join(line, " "))
}

// written saves the app of a section in dir, and returns the shell commands below a heading, with an unused port instead of 8080.
func written(t *testing.T, section, heading string) (dir string, lines []string) {
	t.Helper()
	i := slices.IndexFunc(languages, func(l language) bool { return l.name == section })
	l := languages[i]
	l.app.installed(t)
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, l.app.file), []byte(markdown.Block(t, document, section, l.block)), 0o644); err != nil {
		t.Fatal(err)
	}
	port := ports.Unused()
	text := strings.ReplaceAll(markdown.Block(t, document, heading, "sh"), "8080", port)
	return dir, strings.Split(strings.TrimSpace(text), "\n")
}

// TestTyped types the document's first commands into a shell on a terminal. Each curl must print what its comment says.
func TestTyped(t *testing.T) {
	dir, lines := written(t, "Python", "What an app has to do")
	s := instance.Shell(t, "bash", bin, dir)
	s.Press(lines[0] + "\n")
	s.Await("generation ready")
	answers := 0
	for _, line := range lines[1:] {
		_, want, _ := strings.Cut(line, "# ")
		if strings.HasPrefix(line, "curl") {
			answers++
			s.Succeeds("crankctl wait -idle", "") // until then the old generation may still accept
		} else {
			want = "swapped"
		}
		s.Succeeds(line, want)
	}
	if answers != 2 {
		t.Errorf("got %d answers, want 2", answers)
	}
	s.Do("kill %1")
	s.Do("wait")
	s.Exit()
}

// TestTypedJava: java compiles the app by itself, in the foreground. Ctrl-C ends it.
func TestTypedJava(t *testing.T) {
	dir, lines := written(t, "Java", "Java")
	if len(lines) != 1 {
		t.Fatalf("the command is %q, want one line", lines)
	}
	instance.Interrupt(t, bin, dir, lines[0])
}
