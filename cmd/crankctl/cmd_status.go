package main

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

var cmdStatus = &command{
	name:     "status",
	summary:  "show on one screen how it is going; exit 0 if ready, 1 if not",
	examples: []string{"crankctl status", "crankctl status -o json"},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			status, err := s.client.Status(s.ctx)
			if err != nil {
				return err
			}
			if done, jsonErr := s.json(status); !done {
				err = s.status(status)
			} else {
				err = jsonErr
			}
			if err == nil && !status.Ready {
				return errQuiet
			}
			return err
		}
	},
}

func (s *session) status(status control.Status) error {
	fmt.Fprintln(s.stdout, clean(headline(status)))
	if status.BackoffSeconds != nil {
		fmt.Fprintf(s.stdout, "next start in %s\n", compact(*status.BackoffSeconds))
	}
	if len(status.Generations) > 0 {
		fmt.Fprintln(s.stdout)
		if err := s.generations(status.Generations); err != nil {
			return err
		}
	}
	if len(status.Sockets) > 0 {
		fmt.Fprintln(s.stdout)
		if err := table(s.stdout, socketRows(status.Sockets)); err != nil {
			return err
		}
	}
	if status.LastSwap != nil {
		fmt.Fprintf(s.stdout, "\nlast swap: %s\n", clean(swapText(*status.LastSwap)))
	}
	return nil
}

// headline reads "web: ready, generation 4 (pid 57), crank up 2h3m".
func headline(status control.Status) string {
	parts := []string{"not ready"}
	switch {
	case status.Ready:
		parts[0] = "ready"
	case status.Stopping:
		parts[0] = "stopping"
	}
	if !status.Ready && status.Reason != "" {
		parts[0] += " (" + status.Reason + ")"
	}
	for _, g := range status.Generations {
		switch g.Generation {
		case status.Current:
			parts = append(parts, nameOf(g))
		case status.Candidate:
			if status.Current == 0 {
				continue // the reason has named it
			}
			parts = append(parts, fmt.Sprintf("generation %d %s", g.Generation, g.State))
		}
	}
	if !status.Started.IsZero() {
		parts = append(parts, "crank up "+compact(time.Since(status.Started).Seconds()))
	}
	return status.Name + ": " + strings.Join(parts, ", ")
}

func socketRows(sockets []control.Socket) [][]string {
	rows := [][]string{{"FD", "SOCKET", "BOUND"}}
	for _, socket := range sockets {
		rows = append(rows, []string{fmt.Sprint(socket.FD), socket.Address, socket.Bound})
	}
	return rows
}

// swapText reads "reload 3 -> 4 in 2.2s", or "run of generation 5 failed: exited 3 before ready".
func swapText(r control.Result) string {
	if r.OK {
		return fmt.Sprintf("%s %d -> %d in %s", r.Trigger, r.From, r.Generation, compact(r.Seconds))
	}
	return fmt.Sprintf("%s of generation %d failed: %s", r.Trigger, r.Generation, r.Reason)
}
