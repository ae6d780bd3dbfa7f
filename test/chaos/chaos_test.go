// Package chaos lets random things happen to one crank, under load, and checks after each of them what must always be
// so: crank answers, one generation serves, the app answers, nothing is left behind, and a request is lost only where
// the app that had it was killed.
package chaos

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/programs"
)

var (
	length = flag.Duration("chaos", 10*time.Second, "for how long things happen")
	seed   = flag.Uint64("seed", 0, "replay the events of this seed; 0: a new one")
	update = flag.Bool("update", false, "write what happened into docs/guarantees.md")
)

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin)) }

// quietEvery is the number of events after which crank is left alone until nothing of them is left.
const quietEvery = 4

// TestChaos: the events depend on the seed alone, and what they meet on the machine as well.
func TestChaos(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	r := start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("go test ./test/chaos -chaos %v -seed %d\n%s", *length, *seed, strings.Join(r.script, "\n"))
		}
	})
	source := rand.New(rand.NewPCG(*seed, 0))
	counts := map[string]int{}
	began := time.Now()
	for n := 1; time.Since(began) < *length; n++ {
		e, p := choose(source), choosePressure(source)
		r.script = append(r.script, fmt.Sprintf("%4d  %7.3fs  %s, beside: %s", n, time.Since(began).Seconds(), e.name, p.name))
		counts[e.name]++
		counts[p.name]++
		r.happen(e, p, source.Uint64())
		r.holds()
		r.account(e.kills)
		if n%quietEvery == 0 {
			r.quiet()
		}
	}
	r.quiet()
	report := r.load.Stop()
	r.end()
	if report.Lost != r.lost {
		t.Errorf("%d requests were lost, %d of them with an app that was killed", report.Lost, r.lost)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Seed %d: %d events in %v, %d generations; %d requests over %d connections, %d of them lost, with an app that was killed.\n\n",
		*seed, len(r.script), time.Since(began).Round(time.Second), r.generations, report.Requests, report.Connections, report.Lost)
	text.WriteString("| event | times |\n|---|--:|\n")
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if name != nothing {
			fmt.Fprintf(&text, "| %s | %d |\n", name, counts[name])
		}
	}
	t.Logf("\n%s", text.String())
	if *update {
		r.must(markdown.Splice("../../docs/guarantees.md", "<!-- chaos: make chaos CHAOS_FLAGS=-update -->", "<!-- end of chaos -->", text.String()))
	}
}

// nothing is the name of what does not happen.
const nothing = "nothing"

// happen lets an event happen, with something else beside it.
func (r *run) happen(e event, p pressure, random uint64) {
	r.Helper()
	pressed := make(chan error, 1)
	go func() { pressed <- p.do(r, rand.New(rand.NewPCG(random, 1))) }()
	defer func() { r.must(<-pressed) }()
	e.do(r, rand.New(rand.NewPCG(random, 0)))
}

// choosePressure returns one of pressures, or, half the time, none.
func choosePressure(source *rand.Rand) pressure {
	if n := source.IntN(2 * len(pressures)); n < len(pressures) {
		return pressures[n]
	}
	return pressure{nothing, func(*run, *rand.Rand) error { return nil }}
}

// choose returns a random event, by weight.
func choose(source *rand.Rand) event {
	sum := 0
	for _, e := range events {
		sum += e.weight
	}
	n := source.IntN(sum)
	for _, e := range events {
		if n -= e.weight; n < 0 {
			return e
		}
	}
	panic("unreachable")
}
