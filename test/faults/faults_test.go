// Package faults brings the real program to each moment of its life, does to it there what can go wrong on a real
// machine, and checks what stands in the table: who serves, what fails, with which code crank ends. Then the fault is
// undone, and crank must be as it was before.
package faults

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/crankctl/crank/test/programs"
)

var (
	all    = flag.Bool("all", false, "every cell, not only some of each fault")
	update = flag.Bool("update", false, "with -all: write the matrix into docs/guarantees.md")
)

// atATime is how many cells run beside each other: most of a cell is waiting.
const atATime = "4"

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atATime); err != nil {
		panic(err)
	}
	os.Exit(programs.Main(m, &bin))
}

// moment is a moment of crank's life.
type moment int

const (
	beforeStart moment = iota // the fault is there when crank starts
	starting                  // one generation serves, the next one has not said READY=1
	settling                  // both serve
	ready                     // one serves, nothing is under way; a swap is asked for with the fault there
	draining                  // one serves, an older one is asked to leave
	stopping                  // crank is asked to end, and the app drains
	moments
)

var momentNames = [moments]string{"before start", "starting", "settling", "ready", "draining", "shutting down"}

// outcome is what becomes of crank and of its app.
type outcome string

const (
	starts   outcome = "starts"           // the first generation serves
	swaps    outcome = "swaps"            // the candidate becomes current
	servesOn outcome = "serves on"        // the same process serves; the candidate, if there was one, has failed
	kills    outcome = "kills, serves on" // the one that had to leave was killed
	restarts outcome = "restarts"         // the current one is gone, and another one serves
	ends     outcome = "ends"             // crank ends, with a code that depends on the moment
)

// endsWith is crank's end with this code.
func endsWith(code int) outcome { return outcome(fmt.Sprintf("ends %d", code)) }

// end reports whether crank ends.
func (o outcome) end() bool { return strings.HasPrefix(string(o), string(ends)) }

// accepts reports whether got is what was wanted.
func (o outcome) accepts(got outcome) bool { return o == got || o == ends && got.end() }

// expectation is what a cell of the table says.
type expectation struct {
	want   outcome // empty: there is no such cell
	words  string  // what is expected, or why there is no such cell
	always bool    // it is tested without -all
}

// often is a cell that is always tested.
func often(want outcome, words string) expectation { return expectation{want, words, true} }

// rare is a cell for -all.
func rare(want outcome, words string) expectation { return expectation{want, words, false} }

// none is a cell that there cannot be.
func none(why string) expectation { return expectation{words: why} }

// fault is a row of the table.
type fault struct {
	name    string
	missing func() string        // why this machine cannot make it; nil or "": it can
	setup   func(*cell)          // before crank is started
	inject  func(*cell)          // at the moment; nil: setup has done it
	check   func(*cell, outcome) // what else is to be seen, with the fault there
	undo    func(*cell)          // nil: it is over by itself
	late    bool                 // "before start" is right after the start

	brief       bool // it is undone before it is looked what becomes of crank: until then crank knows no better
	unreachable bool // while it lasts nobody can be sure to reach the control socket: the log is read, HUP asks
	broken      bool // it cannot be undone: no good swap is tried afterwards
	asks        bool // it asks for a swap itself
	silent      bool // while it lasts the app does not answer
	deaf        bool // crank's stderr is no log that can be read
	code        int  // with which crank ends when it is asked to, afterwards

	at [moments]expectation
}

// results are what was found.
type results struct {
	mu        sync.Mutex
	texts     map[string]string // by fault and moment
	cells     int
	survived  int
	notTested []string
}

func (r *results) record(f *fault, m moment, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[key(f, m)] = text
}

func (r *results) count(survived bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells++
	if survived {
		r.survived++
	}
}

// skip says loudly what could not be tested.
func (r *results) skip(t *testing.T, f *fault, m moment, why string) {
	text := fmt.Sprintf("NOT TESTED: %s, %s: %s", f.name, momentNames[m], why)
	r.record(f, m, "not tested")
	r.mu.Lock()
	r.notTested = append(r.notTested, text)
	r.mu.Unlock()
	t.Skip(text)
}

func key(f *fault, m moment) string { return fmt.Sprint(f.name, "/", m) }

// TestFaults runs the table.
func TestFaults(t *testing.T) {
	r := &results{texts: map[string]string{}}
	table := faults()
	t.Cleanup(func() { r.report(t, table) })
	for _, f := range table {
		for m, e := range f.at {
			if e.want == "" || !e.always && !*all {
				continue
			}
			t.Run(f.name+"/"+momentNames[m], func(t *testing.T) {
				t.Parallel()
				if f.missing != nil {
					if why := f.missing(); why != "" {
						r.skip(t, f, moment(m), why)
					}
				}
				t.Cleanup(func() { r.count(!t.Failed()) })
				got := run(t, f, moment(m))
				if e.want.accepts(got) && e.want.end() {
					r.record(f, moment(m), string(e.want)) // some codes depend on the machine
				} else {
					r.record(f, moment(m), string(got))
				}
				if !e.want.accepts(got) {
					t.Errorf("it %s, want: %s (%s)", got, e.want, e.words)
				}
			})
		}
	}
}

// TestTable: each moment of each fault has its words, and each fault some cells that are always tested.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, f := range faults() {
		if names[f.name] {
			t.Errorf("%s is there twice", f.name)
		}
		names[f.name] = true
		always := 0
		for m, e := range f.at {
			if e.words == "" {
				t.Errorf("%s: nothing is said of %s", f.name, momentNames[m])
			}
			if e.always {
				always++
			}
		}
		if always == 0 {
			t.Errorf("%s: no cell is always tested", f.name)
		}
	}
}

// run is one cell.
func run(t *testing.T, f *fault, m moment) outcome {
	c := newCell(t, f, m)
	if f.setup != nil {
		f.setup(c)
	}
	c.reach()
	if f.brief && m == draining {
		c.undo()
	}
	got := c.observe()
	c.check(got)
	c.undo()
	c.after()
	return got
}
