package pid1

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/crankctl/crank/test/markdown"
)

// behaviour is a row of the matrix. The tests of a whole domain (every exit code) are behaviours too.
type behaviour struct {
	name  string
	needs option // an init that does not have it gets a dash; empty: every init is tested
	check func(p *program, flags []string) error
	lacks string // why crank does not do it; a crank that does fails the test, so that this is no longer said
}

// behaviours in the order of the matrix.
var behaviours = slices.Concat(reaping, signalling, inheriting, exiting, leaving, surroundings)

var (
	results   = map[string]string{} // by row and column
	resultsMu sync.Mutex
)

func record(row string, p *program, text string) {
	resultsMu.Lock()
	defer resultsMu.Unlock()
	results[row+"/"+p.name] = text
}

// TestBehaviour runs every row for every init. crank must do them all; what a peer does is printed.
func TestBehaviour(t *testing.T) {
	t.Cleanup(func() { printMatrix(t) })
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			for _, p := range inits {
				t.Run(p.name, func(t *testing.T) {
					t.Parallel()
					record(b.name, p, b.run(t, p))
				})
			}
		})
	}
}

// errDash says that a program has no such thing.
var errDash = errors.New("it has no such option")

// run returns what the matrix says.
func (b behaviour) run(t *testing.T, p *program) string {
	flags, has := p.options[b.needs]
	if p.path == "" || b.needs != "" && !has {
		return "-"
	}
	err := b.check(p, flags)
	switch {
	case errors.Is(err, errDash):
		return "-"
	case p.ours() && b.lacks != "" && err == nil:
		t.Error("crank does this now: say so")
	case err == nil:
		return "ok"
	case p.ours() && b.lacks == "":
		t.Error(err)
	default:
		t.Logf("%s does otherwise: %v", p.name, err)
	}
	return "no"
}

var update = flag.Bool("update", false, "write the matrix into docs/pid1.md")

const (
	document    = "../../docs/pid1.md"
	matrixBegin = "<!-- matrix: go test ./test/pid1 -update -->"
	matrixEnd   = "<!-- end of matrix -->"
)

// printMatrix prints what was found, and with -update writes it into the document.
func printMatrix(t *testing.T) {
	var text strings.Builder
	text.WriteString("| behaviour |")
	for _, p := range inits {
		text.WriteString(" " + p.name + " |")
	}
	text.WriteString("\n|---|" + strings.Repeat(":-:|", len(inits)) + "\n")
	for _, b := range behaviours {
		fmt.Fprintf(&text, "| %s |", b.name)
		for _, p := range inits {
			fmt.Fprintf(&text, " %s |", results[b.name+"/"+p.name])
		}
		text.WriteString("\n")
	}
	t.Log("\n" + text.String())
	if *update {
		must(t, markdown.Splice(document, matrixBegin, matrixEnd, text.String()))
	}
}

// inContainer starts app under p, lets check look at it, and closes the container.
func inContainer(p *program, o options, flags, app []string, check func(c *container) error) error {
	c, err := start(p, o, flags, app...)
	if err != nil {
		return err
	}
	defer c.close()
	return check(c)
}

// app is `inside ROLE ...`.
func app(role string, args ...string) []string { return append([]string{inside, role}, args...) }
