package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/crankctl/crank/pkg/control"
)

// move is what became of a generation: the state that it is in, or "failed".
type move struct {
	generation int
	to, cause  string
	pid        int
}

// moves returns all so far: from crank's log, or, where nobody can read that, from its events.
func (c *cell) moves() (all []move) {
	c.Helper()
	if c.fault.deaf {
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		_ = c.client.Events(ctx, 0, false, func(e control.Event) { // crank may not be there yet, or any more
			if e.To != "" {
				all = append(all, move{e.Generation, e.To, e.Cause, e.PID})
			}
			if e.Kind == "failed" {
				all = append(all, move{e.Generation, "failed", e.Cause, e.PID})
			}
		})
		return all
	}
	log, err := os.ReadFile(filepath.Join(c.dir, "log"))
	c.must(err)
	for line := range bytes.Lines(log) {
		if !bytes.Contains(line, []byte(`"msg":"generation `)) {
			continue
		}
		var l struct {
			Msg, Cause      string
			Generation, PID int
		}
		if json.Unmarshal(line, &l) == nil {
			all = append(all, move{l.Generation, strings.TrimPrefix(l.Msg, "generation "), l.Cause, l.PID})
		}
	}
	return all
}

// find returns the move of a generation, nil: there was none.
func find(moves []move, generation int, to string) *move {
	for i, m := range moves {
		if m.generation == generation && m.to == to {
			return &moves[i]
		}
	}
	return nil
}

// last returns the number of the newest generation.
func last(moves []move) (n int) {
	for _, m := range moves {
		n = max(n, m.generation)
	}
	return n
}

// main returns the process of a generation.
func (c *cell) main(generation int) int {
	c.Helper()
	m := find(c.moves(), generation, "starting")
	if m == nil {
		c.Fatalf("generation %d was not started", generation)
	}
	return m.pid
}
