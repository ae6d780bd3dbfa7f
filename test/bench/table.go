package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// limit is what a figure is to reach.
type limit struct {
	word   string // at most, at least, less than
	bound  float64
	better float64 // what is aimed at; 0: no more than the bound
	unit   string  // of the bound; x: a ratio
}

func atMost(bound float64, unit string) limit {
	return limit{word: "at most", bound: bound, unit: unit}
}
func atLeast(bound float64, unit string) limit {
	return limit{word: "at least", bound: bound, unit: unit}
}
func lessThan(bound float64, unit string) limit {
	return limit{word: "less than", bound: bound, unit: unit}
}

func (l limit) aim(better float64) limit {
	l.better = better
	return l
}

func (l limit) String() string {
	if l.word == "" {
		return ""
	}
	text := fmt.Sprintf("%s %s", l.word, l.text(l.bound))
	if l.better != 0 {
		text += ", aim " + l.text(l.better)
	}
	return text
}

func (l limit) text(v float64) string {
	switch l.unit {
	case "":
		return fmt.Sprint(v)
	case "x":
		return fmt.Sprintf("%vx", v)
	}
	return fmt.Sprintf("%v %s", v, l.unit)
}

func (l limit) holds(v, bound float64) bool {
	switch l.word {
	case "at least":
		return v >= bound
	case "less than":
		return v < bound
	}
	return v <= bound
}

// verdict says whether v reaches the limit.
func (l limit) verdict(v float64) string {
	switch {
	case l.word == "":
		return ""
	case math.IsNaN(v):
		return "not measured"
	case l.better != 0 && l.holds(v, l.better):
		return "yes, and the aim"
	case l.holds(v, l.bound):
		return "yes"
	}
	return "NO"
}

// row is a line of the table.
type row struct {
	what        string
	crank       string  // its figure
	peer, other string  // and what it is compared with, with its figure
	ratio       float64 // of the two; NaN: there is none
	value       float64 // what the target is about
	target      limit   // the zero value: none
}

// compareSamples compares by the medians. An empty sample is that of a peer that is not installed.
func compareSamples(crank sample, peer string, other sample, show func(sample) string) row {
	r := row{crank: show(crank), peer: peer, other: "not installed", ratio: math.NaN(), value: math.NaN()}
	if len(other) > 0 {
		r.other, r.ratio = show(other), crank.median()/other.median()
		r.value = r.ratio
	}
	return r
}

func (r row) cells() []string {
	ratio := ""
	if !math.IsNaN(r.ratio) {
		ratio = digits(r.ratio)
	}
	return []string{r.what, r.crank, r.peer, r.other, ratio, r.target.String(), r.target.verdict(r.value)}
}

var header = []string{"what", "crank", "compared with", "its figure", "ratio", "target", "reached"}

// printTable prints the rows for people.
func printTable(to io.Writer, rows []row) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, cells := range append([][]string{header}, cellsOf(rows)...) {
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
}

// cellsOf leaves out what the row above says as well.
func cellsOf(rows []row) (all [][]string) {
	for i, r := range rows {
		cells := r.cells()
		if i > 0 && rows[i-1].what == r.what {
			cells[0] = ""
			if rows[i-1].crank == r.crank {
				cells[1] = ""
			}
		}
		all = append(all, cells)
	}
	return all
}

func inMarkdown(rows []row) string {
	var text strings.Builder
	for i, cells := range append([][]string{header}, cellsOf(rows)...) {
		for j := range cells {
			cells[j] = strings.ReplaceAll(cells[j], "|", `\|`)
		}
		fmt.Fprintf(&text, "| %s |\n", strings.Join(cells, " | "))
		if i == 0 {
			text.WriteString("|---|--:|---|--:|--:|---|---|\n")
		}
	}
	return text.String()
}

// The table in the document stands between these lines.
const (
	tableBegin = "<!-- bench: make bench BENCH_FLAGS='-markdown docs/performance.md' -->"
	tableEnd   = "<!-- end of bench -->"
)
