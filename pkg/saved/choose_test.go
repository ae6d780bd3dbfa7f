package saved

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/supervisor"
)

func TestChoose(t *testing.T) {
	var (
		lineA = []string{"/app", "A"}
		lineB = []string{"/app", "B"}
		a     = supervisor.Command{Argv: lineA}
		b     = supervisor.Command{Argv: lineB}
		hot   = supervisor.Command{Argv: []string{"/app", "hot"}, Stop: time.Minute}
		sameA = supervisor.Command{Argv: lineA, Env: []string{"DEBUG=1"}}
		none  = supervisor.Command{}
	)
	tests := []struct {
		name     string
		line     []string
		saved    *Record
		first    supervisor.Command
		previous *supervisor.Command
		why      string
	}{
		{"neither", nil, nil, none, nil, WhyNone},
		{"the line alone", lineA, nil, a, nil, WhyCommandLine},
		{"the file alone", nil, &Record{Command: hot, Previous: &b}, hot, &b, WhySaved},
		{"the file alone, once in the place of a line", nil, &Record{Base: lineA, Command: hot}, hot, nil, WhySaved},
		{"a restart keeps a hot update", lineA, &Record{Base: lineA, Command: hot, Previous: &a}, hot, &a, WhyReplaced},
		{"also one of the environment alone", lineA, &Record{Base: lineA, Command: sameA}, sameA, nil, WhyReplaced},
		{"nothing was put in its place", lineA, &Record{Base: lineA, Command: a, Previous: &hot}, a, &hot, WhyCommandLine},
		{"a new line wins", lineB, &Record{Base: lineA, Command: hot, Previous: &a}, b, nil, WhyStale},
		{"a longer line is a new one", append(lineA[:2:2], "x"), &Record{Base: lineA, Command: hot},
			supervisor.Command{Argv: []string{"/app", "A", "x"}}, nil, WhyStale},
		{"a file of 2014 has no base", lineA, &Record{Command: hot}, a, nil, WhyStale},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rec Record
			if tt.saved != nil {
				rec = *tt.saved
			}
			first, previous, why := Choose(tt.line, rec, tt.saved != nil)
			if diff := cmp.Diff(tt.first, first); diff != "" {
				t.Error("first:", diff)
			}
			if diff := cmp.Diff(tt.previous, previous); diff != "" {
				t.Error("previous:", diff)
			}
			if why != tt.why {
				t.Errorf("why is %q, want %q", why, tt.why)
			}
		})
	}
}
