package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/markdown"
)

const (
	document   = "../../docs/guarantees.md"
	tableBegin = "<!-- faults: make faults FAULTS_FLAGS=-update -->"
	tableEnd   = "<!-- end of faults -->"
)

// report prints what was found, and with -update writes it into the document. It prints without -v too, for make faults: with
// -v what the cells that have failed say is lost among those that have not.
func (r *results) report(t *testing.T, table []*fault) {
	text := r.markdown(table)
	fmt.Println(text)
	for _, line := range r.notTested {
		fmt.Println(line)
	}
	fmt.Printf("%d cells, %d survived, %d not tested\n", r.cells, r.survived, len(r.notTested))
	if !*update {
		return
	}
	switch {
	case !*all:
		t.Error("-update without -all would leave most of the matrix empty")
	case t.Failed():
		t.Error("not written: the matrix is not what it should be")
	default:
		if err := markdown.Splice(document, tableBegin, tableEnd, text); err != nil {
			t.Error(err)
		}
	}
}

// markdown is the matrix, and below it each cell in words.
func (r *results) markdown(table []*fault) string {
	var text strings.Builder
	text.WriteString("| fault | " + strings.Join(momentNames[:], " | ") + " |\n|---|" + strings.Repeat("---|", int(moments)) + "\n")
	for _, f := range table {
		text.WriteString("| " + f.name + " |")
		for m := range moments {
			found, ok := r.texts[key(f, m)]
			if !ok {
				found = "-"
			}
			text.WriteString(" " + found + " |")
		}
		text.WriteString("\n")
	}
	text.WriteString("\nIn words:\n\n")
	for _, f := range table {
		fmt.Fprintf(&text, "- **%s.** %s\n", f.name, f.words())
	}
	return text.String()
}

// words says what the cells of a row say, those that say the same together.
func (f *fault) words() string {
	var sentences []string
	names := map[string][]string{}
	for m, e := range f.at {
		if e.words == "" {
			continue
		}
		if names[e.words] == nil {
			sentences = append(sentences, e.words)
		}
		names[e.words] = append(names[e.words], momentNames[m])
	}
	for i, s := range sentences {
		sentences[i] = strings.Join(names[s], ", ") + ": " + s + "."
	}
	text := strings.Join(sentences, " ")
	return strings.ToUpper(text[:1]) + text[1:]
}
