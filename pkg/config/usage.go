package config

import (
	"cmp"
	"fmt"
	"strings"
)

const (
	width  = 100 // of -help
	indent = 30  // of what the flags mean
)

const synopsis = "crank [flags] [--] [command [arg ...]]"

const summary = "crank runs an app as PID 1 of a container or as its entrypoint. It holds the listening sockets, " +
	"passes them to the app, and replaces the running app by a new one without closing them: the old one is " +
	"asked to drain only once the new one has said that it is ready."

// example is a line to type and what it does.
type example struct{ line, doc string }

var examples = []example{
	{"crank -bind :8080 -- /app", "hold port 8080, wait for READY=1"},
	{"crank -bind :8080 -ready none -- /app", "the app cannot say that it is ready"},
	{"crank -bind http=:8080 -bind unix:///run/a.sock -- /app", "two sockets"},
	{"CRANK_BIND=:8080 CRANK_STOP_TIMEOUT=1m crank -- /app", "the same by variables"},
	{"crank -- /app", "an init that forwards signals and reaps"},
	{"crankctl run -wait -- /app --v2", "swap to another command"},
	{"kill -HUP 1", "swap to the same command"},
}

// exitCode is a row of the table of exit codes.
type exitCode struct{ code, doc string }

var exitCodes = []exitCode{
	{"0 to 255", "the app's own: of the newest generation that was ever current, else of the newest one"},
	{"128+N", "a signal ended the app"},
	{"1", "also instead of 0: the app exited before it was first ready, or -watchdog exit"},
	{"124", "the first start was not ready in time"},
	{"125", "an error of crank's own, such as a bad flag"},
	{"126, 127", "the command cannot be executed, is not found"},
}

const rules = "A flag replaces its variable, a variable replaces the default. An empty variable counts as not set. " +
	"A DURATION is a number of seconds (10) or a Go duration (1m30s). A SIGNAL is a name (TERM, SIGTERM), a " +
	"number, or RTMIN+N. A flag that takes nothing can be turned off: -listen-pid=false."

// ShortUsage returns what crank prints when it is given neither a command nor a setting.
func ShortUsage() string {
	return "Usage: " + synopsis + "\n" +
		"Give a command, as in crank -- /app, or a setting that identifies the instance, such as -name or -bind.\n" +
		"For help: crank -help\n"
}

// Usage returns the text of -help, at most 100 columns wide.
func Usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s\n\n%s\n", synopsis, wrap(summary, width, 0), wrap(rules, width, 0))
	for _, group := range groups {
		fmt.Fprintf(&b, "\n%s\n", group)
		for _, s := range inGroup(group) {
			usageRow(&b, s)
		}
	}
	fmt.Fprintf(&b, "\nProfiles, with %s\n%s  %s\n", exampleBinds, profileTable(), wrap(profileRules, width-2, 2))
	b.WriteString("\nExit codes\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "  %-10s %s\n", e.code, e.doc)
	}
	b.WriteString("\nExamples\n")
	for _, e := range examples {
		fmt.Fprintf(&b, "  %-56s %s\n", e.line, e.doc)
	}
	return b.String()
}

func usageRow(b *strings.Builder, s Setting) {
	left := "  " + s.usage()
	text := s.Doc + s.where()
	fmt.Fprintf(b, "%-*s%s\n", indent, left, wrap(text, width-indent, indent))
}

// usage returns the flag with what it takes.
func (s *Setting) usage() string { return strings.TrimSpace("-" + s.Flag + " " + s.Arg) }

// standard returns the default in words.
func (s *Setting) standard() string { return cmp.Or(s.Usually, s.Default) }

// where returns the default and the variable in parentheses.
func (s *Setting) where() string {
	var parts []string
	if d := s.standard(); d != "" && d != "false" {
		parts = append(parts, "default "+d)
	}
	if s.Var != "" {
		parts = append(parts, s.Var)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

// inGroup returns the settings of a group.
func inGroup(group string) []Setting {
	var list []Setting
	for _, s := range settings {
		if s.Group == group {
			list = append(list, s)
		}
	}
	return list
}

// wrap breaks text at spaces into lines of at most width columns; lines after the first begin with
// indent spaces. A longer word stays whole.
func wrap(text string, width, indent int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

// Markdown returns the tables of docs/configuration.md.
func Markdown() string {
	var b strings.Builder
	for _, group := range groups {
		fmt.Fprintf(&b, "### %s\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n", group)
		for _, s := range inGroup(group) {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(s.usage()), code(s.Var), cell(s.standard()), cell(s.Doc))
		}
		b.WriteByte('\n')
	}
	b.WriteString(profileMarkdown())
	return b.String()
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

var cellEscapes = strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", `\<`)

func cell(text string) string { return cellEscapes.Replace(text) }
