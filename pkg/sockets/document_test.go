package sockets

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/markdown"
)

var update = flag.Bool("update", false, "write the table of docs/sockets.md")

// TestDocument: the table of docs/sockets.md matches linux.SharedOptions.
func TestDocument(t *testing.T) {
	const (
		path  = "../../docs/sockets.md"
		begin = "<!-- The table is printed from pkg/linux: go test ./pkg/sockets -update -->"
		end   = "<!-- end of the table -->"
	)
	var table strings.Builder
	table.WriteString("\n| option | changed by a failed candidate | note |\n|---|---|---|\n")
	for _, o := range linux.SharedOptions {
		fmt.Fprintf(&table, "| %s | %v | %s |\n", o.Name(), o.Undo, o.Note)
	}
	table.WriteString("\n")
	if *update {
		if err := markdown.Splice(path, begin, end, table.String()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), begin+"\n"+table.String()+end) {
		t.Error("the table of docs/sockets.md is out of date: go test ./pkg/sockets -update writes it")
	}
}
