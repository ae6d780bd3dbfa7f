package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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

// descriptors returns how many a process has.
func descriptors(pid int) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list)
}

// stat returns the state and the parent of a process, as /proc/PID/stat says.
func stat(pid int) (state string, parent int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	if f := strings.Fields(rest); len(f) > 1 {
		parent, _ = strconv.Atoi(f[1])
		return f[0], parent
	}
	return "", 0
}

// pids returns all processes.
func pids() (all []int) {
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range found {
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// zombies returns the children of a process that nobody has waited for.
func zombies(pid int) (all []int) {
	for _, p := range pids() {
		if state, parent := stat(p); state == "Z" && parent == pid {
			all = append(all, p)
		}
	}
	return all
}

// processes returns those of this cell, crank among them, known by their environment.
func (c *cell) processes() (all []int) {
	want := []byte("\x00" + mark + "=" + c.dir + "\x00")
	for _, pid := range pids() {
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if bytes.Contains(append([]byte{0}, environ...), want) {
			all = append(all, pid)
		}
	}
	return all
}
