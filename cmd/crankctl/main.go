// Command crankctl asks a running crank for something and prints the answer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

// commands are the verbs, in the order in which help lists them.
var commands = []*command{
	cmdRun, cmdReload, cmdRollback, cmdAbort,
	cmdPS, cmdKill, cmdStatus, cmdInfo,
	cmdReady, cmdWait, cmdEvents,
	cmdNotify, cmdExec, cmdCheck,
	cmdVersion, cmdCompletion,
}

// command is one verb.
type command struct {
	name     string
	aliases  []string
	args     string // what follows the flags, for the usage line
	summary  string // one line, for the list
	details  string // what else there is to know
	examples []string
	local    bool // needs no crank
	changes  bool // not read-only: see targets
	// setup declares the verb's flags and returns what runs with them.
	setup func(*flag.FlagSet) action
}

// action does what a verb says; args is what follows the flags.
type action func(s *session, args []string) error

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitRefused     = 4
	exitTimeout     = 124
)

func main() { os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr)) }

// run is the whole program; args[0] is its name. As crankx, the first argument is the name of the
// crank, or a pattern.
func run(args, env []string, stdout, stderr io.Writer) int {
	s := newSession(env, stdout, stderr)
	err := s.main(filepath.Base(args[0]) == "crankx", args[1:])
	return s.conclude(err)
}

func (s *session) main(crankx bool, args []string) error {
	before := newFlags("crankctl")
	s.global.declare(before)
	if err := before.Parse(args); err != nil {
		return s.flagError(before, nil, err)
	}
	args = before.Args()
	if crankx {
		if len(args) == 0 {
			return usagef("crankx needs the name of a crank: crankx NAME VERB")
		}
		s.global.set("name", args[0])
		args = args[1:]
	}
	if len(args) == 0 {
		help(s.stderr)
		return usagef("no verb was given")
	}
	if args[0] == "help" {
		return s.help(args[1:])
	}
	c := lookup(args[0])
	if c == nil {
		return unknownVerb(args[0])
	}
	return s.verb(c, args[1:])
}

// verb parses what follows the verb and runs it, on every crank that is meant.
func (s *session) verb(c *command, args []string) error {
	fs := newFlags(c.name)
	act := c.setup(fs)
	s.global.declare(fs)
	if err := fs.Parse(args); err != nil {
		return s.flagError(fs, c, err)
	}
	if fs.NArg() > 0 && c.args == "" {
		return usagef("unexpected argument %q: see crankctl help %s", fs.Arg(0), c.name)
	}
	if err := s.global.check(); err != nil {
		return err
	}
	if limit := s.global.limit(c); limit > 0 {
		s.limit = limit
		var cancel context.CancelFunc
		s.ctx, cancel = context.WithTimeout(s.ctx, limit)
		defer cancel()
	}
	if c.local || c == cmdReady && fs.NArg() > 0 { // ready URL asks that
		return s.onlyOneOrZero(c, act(s, fs.Args()))
	}
	targets, err := s.targets(c)
	if err != nil {
		return s.onlyOneOrZero(c, s.gaveUp(err))
	}
	s.several = len(targets) > 1
	for _, address := range targets {
		if s.client, err = control.NewClient(address, s.env.get("CRANK_CTL_TOKEN_FILE")); err == nil {
			err = act(s, fs.Args())
		}
		if err != nil {
			return s.onlyOneOrZero(c, s.gaveUp(err))
		}
	}
	return nil
}

// onlyOneOrZero is for ready: a probe knows yes and no, and Docker reserves the other codes.
func (s *session) onlyOneOrZero(c *command, err error) error {
	var usage *usageError
	if err == nil || c != cmdReady || errors.As(err, &usage) {
		return err
	}
	return errors.New(err.Error())
}

// gaveUp says what an expired -timeout means.
func (s *session) gaveUp(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || s.ctx.Err() == nil {
		return err
	}
	e := timeoutError{limit: s.limit}
	if s.client != nil {
		e.name = s.client.Name()
	}
	return e
}

// timeoutError is the end of crankctl's patience.
type timeoutError struct {
	name  string // of the crank that was asked; empty: none
	limit time.Duration
}

func (e timeoutError) Error() string {
	if e.name == "" {
		return fmt.Sprintf("gave up after %v (-timeout), before a crank has answered", e.limit)
	}
	return fmt.Sprintf("gave up after %v (-timeout); what %s has accepted goes on: see crankctl status", e.limit, e.name)
}

func (timeoutError) Unwrap() error { return context.DeadlineExceeded }

// usageError is an error of whoever typed the command.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code    int
	message string
}

func (e *exitError) Error() string { return e.message }

// errQuiet is a failure that the output has said already.
var errQuiet = errors.New("failed")

// conclude prints the error, if any, and returns the exit code.
func (s *session) conclude(err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if !errors.Is(err, errQuiet) {
		fmt.Fprintf(s.stderr, "%s %s\n", s.paint(red, "error:"), clean(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage *usageError
	var exit *exitError
	var wire *control.Error
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &wire) && wire.Code == control.CodeInvalid:
		return exitUsage
	case errors.As(err, &wire) && wire.Refused():
		return exitRefused
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailed
}

// lookup returns the command with this name or alias, or nil.
func lookup(verb string) *command {
	i := slices.IndexFunc(commands, func(c *command) bool {
		return c.name == verb || slices.Contains(c.aliases, verb)
	})
	if i < 0 {
		return nil
	}
	return commands[i]
}

func unknownVerb(verb string) error {
	known := []string{"help"}
	for _, c := range commands {
		known = append(append(known, c.name), c.aliases...)
	}
	return usagef("unknown verb %q%s: crankctl help lists them", verb, didYouMean(verb, known, ""))
}

// newFlags returns a flag set that prints nothing by itself.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// flagError answers -help, and turns what the flag package says into a usage error.
func (s *session) flagError(fs *flag.FlagSet, c *command, err error) error {
	if errors.Is(err, flag.ErrHelp) {
		if c == nil {
			help(s.stdout)
		} else {
			helpVerb(s.stdout, c)
		}
		return err
	}
	message := strings.ReplaceAll(err.Error(), "\n", " ")
	if name, ok := strings.CutPrefix(message, "flag provided but not defined: -"); ok {
		var known []string
		fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		message = fmt.Sprintf("unknown flag -%s%s", name, didYouMean(name, known, "-"))
	}
	if c == nil {
		return usagef("%s: see crankctl help", message)
	}
	return usagef("%s: see crankctl help %s", message, c.name)
}

// didYouMean returns ", did you mean X?" for the closest of known, or nothing.
func didYouMean(word string, known []string, prefix string) string {
	best, bestDistance := "", max(2, len(word)/2)
	if len(word) <= 2 {
		bestDistance = 1
	}
	for _, k := range known {
		if d := distance(word, k); d < bestDistance || d == bestDistance && best == "" && d <= 2 {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s%s?)", prefix, best)
}

// distance is how many insertions, removals and replacements turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
