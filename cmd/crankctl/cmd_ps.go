package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/crankctl/crank/pkg/control"
)

var cmdPS = &command{
	name:     "ps",
	summary:  "list the generations",
	details:  "-starting, -ready and -stopping add to each other; -pid narrows them.",
	examples: []string{"crankctl ps", "crankctl ps -ready", "crankctl ps -o wide", "crankctl ps -o json"},
	setup: func(fs *flag.FlagSet) action {
		selected := declareSelectors(fs)
		return func(s *session, args []string) error {
			pid := 0
			if selected.pid != nil {
				pid = *selected.pid
			}
			found, err := s.client.PS(s.ctx, selected.states(), pid)
			if err != nil {
				return err
			}
			if done, err := s.json(found); done {
				return err
			}
			s.heading()
			return s.generations(found)
		}
	},
}

// selectors choose generations.
type selectors struct {
	starting, ready, stopping bool
	pid                       *int
}

func declareSelectors(fs *flag.FlagSet) *selectors {
	sel := &selectors{}
	fs.BoolVar(&sel.starting, "starting", false, "those that are starting or settling")
	fs.BoolVar(&sel.ready, "ready", false, "the current one")
	fs.BoolVar(&sel.stopping, "stopping", false, "those that are leaving")
	numberVar(fs, &sel.pid, 1, "pid", "only the one with this `pid`")
	return sel
}

func (sel *selectors) states() []string {
	var states []string
	for _, s := range []struct {
		on   bool
		name string
	}{{sel.starting, "starting"}, {sel.ready, "ready"}, {sel.stopping, "stopping"}} {
		if s.on {
			states = append(states, s.name)
		}
	}
	return states
}

// generations prints the table of ps.
func (s *session) generations(list []control.Generation) error {
	wide := s.global.output == "wide"
	header := []string{"GEN", "PID", "STATE", "AGE", "READY IN", "STATUS", "COMMAND"}
	if wide {
		header = []string{"GEN", "SLOT", "PID", "STATE", "AGE", "READY IN", "OTHERS", "TRIGGER", "ASKED BY", "CWD", "STATUS", "COMMAND"}
	}
	rows := [][]string{header}
	for _, g := range list {
		row := []string{strconv.Itoa(g.Generation)}
		if wide {
			row = append(row, strconv.Itoa(g.Slot))
		}
		row = append(row, strconv.Itoa(g.PID), g.State, compact(g.AgeSeconds), readyIn(g))
		if wide {
			row = append(row, strconv.Itoa(g.Others), g.Trigger, askerText(g.Asker), orDash(g.Cwd))
		}
		rows = append(rows, append(row, statusText(g), commandLine(g.Command)))
	}
	return table(s.stdout, rows)
}

func readyIn(g control.Generation) string {
	if g.ReadySeconds == nil {
		return "-"
	}
	return compact(*g.ReadySeconds)
}

// statusText is the app's own text, or how far its state has come.
func statusText(g control.Generation) string {
	far := compact(g.StateSeconds)
	if g.LimitSeconds != nil {
		far += " of " + compact(*g.LimitSeconds)
	}
	switch {
	case g.State == "stopping":
		return "draining " + far
	case g.MissedWatchdog:
		return strings.TrimSpace("missed its watchdog " + g.Status)
	case g.Reloading:
		return strings.TrimSpace("reloading " + g.Status)
	case g.Status != "":
		return g.Status
	case g.State == "starting" || g.State == "settling":
		return far
	}
	return "-"
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// nameOf reads "generation 4 (pid 57)".
func nameOf(g control.Generation) string {
	return fmt.Sprintf("generation %d (pid %d)", g.Generation, g.PID)
}
