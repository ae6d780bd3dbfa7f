package main

import (
	"context"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/crankctl/crank/pkg/control"
)

// session is one call of crankctl.
type session struct {
	env            environment
	stdout, stderr io.Writer
	global         globals
	ctx            context.Context // ends with -timeout
	limit          time.Duration   // which is this; 0: none
	client         *control.Client // nil for verbs that need no crank
	several        bool            // one of several cranks is asked
	live           bool            // stderr is a terminal that can redraw a line
}

func newSession(env []string, stdout, stderr io.Writer) *session {
	s := &session{env: env, stdout: stdout, stderr: stderr, ctx: context.Background()}
	s.global.env = s.env
	s.live = isTerminal(stderr) && s.env.get("TERM") != "dumb"
	return s
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// colors is whether stderr may be painted (https://no-color.org).
func (s *session) colors() bool {
	return s.live && !s.global.noColor && s.env.get("NO_COLOR") == ""
}

// environment is a list of K=V.
type environment []string

func (e environment) lookup(key string) (string, bool) {
	for _, entry := range slices.Backward(e) {
		if k, v, ok := strings.Cut(entry, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// get returns the value, empty where it is not set.
func (e environment) get(key string) string {
	v, _ := e.lookup(key)
	return v
}

// globals are the flags that go before or after the verb.
type globals struct {
	env               environment
	ctl, name, prefix string
	output            string
	timeout           string
	quiet, noColor    bool
	given             map[string]bool // by a flag, not by a variable
}

// declare adds the flags to fs; what was given to an earlier flag set stays.
func (g *globals) declare(fs *flag.FlagSet) {
	g.text(fs, "ctl", "the control `socket`: a path, or tcp://127.0.0.1:PORT (CRANK_CTL)")
	g.text(fs, "name", "the `name` of the crank, or a pattern: all that match, in order (CRANK_NAME)")
	g.text(fs, "prefix", "the runtime `directory` (CRANK_PREFIX)")
	g.text(fs, "o", "the output `format`: table, wide or json (default table)")
	g.text(fs, "timeout", "give up after this `time`: seconds (10) or 1m30s (default never)")
	fs.BoolVar(&g.quiet, "q", g.quiet, "no progress and no summary")
	fs.BoolVar(&g.noColor, "no-color", g.noColor, "no colors (NO_COLOR)")
}

func (g *globals) text(fs *flag.FlagSet, name, usage string) {
	fs.Func(name, usage, func(value string) error {
		g.set(name, value)
		return nil
	})
}

// set gives a flag a value.
func (g *globals) set(name, value string) {
	if g.given == nil {
		g.given = map[string]bool{}
	}
	g.given[name] = true
	*map[string]*string{
		"ctl": &g.ctl, "name": &g.name, "prefix": &g.prefix, "o": &g.output, "timeout": &g.timeout,
	}[name] = value
}

// check completes what no flag gave from the variables, of which an empty one is not set.
func (g *globals) check() error {
	// A flag that says which crank is meant beats a variable that says it otherwise.
	if !g.given["ctl"] && !g.given["name"] && !g.given["prefix"] {
		g.ctl = g.env.get("CRANK_CTL")
	}
	if !g.given["name"] {
		g.name = g.env.get("CRANK_NAME")
	}
	if !g.given["prefix"] {
		g.prefix = g.env.get("CRANK_PREFIX")
	}
	if g.output == "" {
		g.output = "table"
	}
	if !slices.Contains([]string{"table", "wide", "json"}, g.output) {
		return usagef("-o %q: it must be table, wide or json", g.output)
	}
	if g.timeout != "" {
		if _, err := control.ParseDuration(g.timeout); err != nil {
			return usagef("-timeout: %v", err)
		}
	}
	return nil
}

// limit returns the time that a verb has, 0 for any.
func (g *globals) limit(c *command) time.Duration {
	if g.timeout == "" && c == cmdReady {
		return readyTimeout
	}
	d, _ := control.ParseDuration(g.timeout) // checked
	return d
}
