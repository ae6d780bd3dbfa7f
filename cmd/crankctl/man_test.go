//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
	"testing"
)

// The manual page is made from the table of commands: go test ./cmd/crankctl -update writes it.
func TestManual(t *testing.T) {
	golden(t, "../../docs/man/crankctl.1", manual())
}

func manual() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `.TH CRANKCTL 1
.SH NAME
crankctl, crankx \- ask a running crank for something
.SH SYNOPSIS
.B crankctl
[flags] VERB [flags]
.br
.B crankx
NAME VERB [flags]
.SH DESCRIPTION
crankctl talks to crank through its control socket. Data goes to standard output, progress and
errors to standard error. crankx is a link to crankctl that goes through all cranks whose name
matches NAME, in order, and stops at the first failure.
.PP
Without \-ctl, \-name and \-prefix, crankctl uses this user's only instance in the runtime directories. To change another user's instance, name it.
.SH FLAGS
These go before or after the verb.
`)
	manFlags(&b, globalFlags())
	fmt.Fprintln(&b, ".SH VERBS")
	for _, c := range commands {
		flags := verbFlags(c)
		fmt.Fprintf(&b, ".SS %s\n%s.\n", roff(usageLine(c, flags)), roff(capital(c.summary)))
		if len(c.aliases) > 0 {
			fmt.Fprintf(&b, "Also called %s.\n", roff(strings.Join(c.aliases, ", ")))
		}
		if c.details != "" {
			fmt.Fprintf(&b, ".PP\n%s\n", strings.ReplaceAll(roff(c.details), "\n\n", "\n.PP\n"))
		}
		manFlags(&b, flags)
		fmt.Fprintf(&b, ".PP\nExamples:\n.PP\n.nf\n%s\n.fi\n", roff(strings.Join(c.examples, "\n")))
	}
	fmt.Fprintln(&b, ".SH EXIT STATUS")
	for _, code := range exitCodes {
		fmt.Fprintf(&b, ".TP\n%s\n%s\n", code[0], roff(code[1]))
	}
	fmt.Fprint(&b, `.PP
ready knows 0 and 1 only, and 2 for usage. exec exits 126 and 127 as a shell does, else with the
command's own status.
.SH ENVIRONMENT
.TP
CRANK_CTL, CRANK_NAME, CRANK_PREFIX
What \-ctl, \-name and \-prefix are by default. An empty one is not set.
.TP
CRANK_CTL_TOKEN_FILE
The file with the token for a control socket on TCP.
.TP
NO_COLOR
No colors.
.TP
NOTIFY_SOCKET
Where notify sends to.
`)
	return b.Bytes()
}

func manFlags(b *bytes.Buffer, flags []*flag.Flag) {
	for _, f := range flags {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", strings.TrimSpace(roff("-"+f.Name+" "+value)), roff(usage))
	}
}

// roff escapes what troff would take for its own.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
