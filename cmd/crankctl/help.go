package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// exitCodes explain themselves to help and to the manual page.
var exitCodes = [][2]string{
	{"0", "done"},
	{"1", "the operation failed, also: the new generation was not ready in time"},
	{"2", "usage"},
	{"3", "crank was not reached"},
	{"4", "refused: busy, a precondition, too many leaving, nothing to roll back to"},
	{"124", "crankctl's own -timeout"},
}

// help answers crankctl help [VERB].
func (s *session) help(args []string) error {
	if len(args) == 0 {
		help(s.stdout)
		return nil
	}
	c := lookup(args[0])
	if c == nil {
		return unknownVerb(args[0])
	}
	helpVerb(s.stdout, c)
	return nil
}

func help(w io.Writer) {
	fmt.Fprint(w, "usage: crankctl [flags] VERB [flags]\n       crankx NAME VERB [flags]    the same, for all cranks that match NAME\n\n")
	rows := [][]string{}
	for _, c := range commands {
		rows = append(rows, []string{"  " + strings.Join(append([]string{c.name}, c.aliases...), ", "), c.summary})
	}
	_ = table(w, append(rows, []string{"  help", "show this, or help VERB: a verb, with examples"}))
	fmt.Fprint(w, "\nflags, before or after the verb:\n\n")
	printFlags(w, globalFlags())
	fmt.Fprint(w, "\nWithout -ctl, -name and -prefix, crankctl uses this user's only instance in the runtime directories. To change another user's instance, name it.\n\nexit codes:\n\n")
	for _, code := range exitCodes {
		fmt.Fprintf(w, "  %-4s %s\n", code[0], code[1])
	}
}

func helpVerb(w io.Writer, c *command) {
	flags := verbFlags(c)
	fmt.Fprintf(w, "usage: crankctl %s\n\n%s\n", usageLine(c, flags), capital(c.summary)+".")
	if c.details != "" {
		fmt.Fprintf(w, "\n%s\n", c.details)
	}
	if len(c.aliases) > 0 {
		fmt.Fprintf(w, "\nalso called: %s\n", strings.Join(c.aliases, ", "))
	}
	if len(flags) > 0 {
		fmt.Fprint(w, "\nflags:\n\n")
		printFlags(w, flags)
	}
	fmt.Fprint(w, "\nexamples:\n\n")
	for _, example := range c.examples {
		fmt.Fprintf(w, "  %s\n", example)
	}
	if !c.local {
		fmt.Fprint(w, "\ncrankctl help shows the flags that every verb takes.\n")
	}
}

func usageLine(c *command, flags []*flag.Flag) string {
	words := []string{c.name}
	if len(flags) > 0 {
		words = append(words, "[flags]")
	}
	if c.args != "" {
		words = append(words, c.args)
	}
	return strings.Join(words, " ")
}

func printFlags(w io.Writer, flags []*flag.Flag) {
	rows := [][]string{}
	for _, f := range flags {
		name, usage := flag.UnquoteUsage(f)
		if isSwitch(f) && f.DefValue == "true" {
			usage += " (default true)"
		}
		rows = append(rows, []string{strings.TrimRight("  -"+f.Name+" "+name, " "), usage})
	}
	_ = table(w, rows)
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
