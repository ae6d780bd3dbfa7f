package config

import (
	"fmt"
	"strings"
)

// signalRows are the manual page's table of signals to crank.
var signalRows = []example{
	{"TERM, INT, QUIT, or the signals of -stop-on", "Stop. crank is not ready at once; after -drain-delay the app gets the stop signal, and after " +
		"-stop what is left is killed. A second one skips the delay, further ones are forwarded."},
	{"HUP", "Swap to the same command, or what -hup says. It is never lost: at least one swap begins after the last HUP."},
	{"CHLD, PIPE, URG", "crank's own, never forwarded."},
	{"all others", "Forwarded, without a deadline, to the current generation, else to the candidate; held until there is one."},
}

// files are the manual page's table of the files of an instance.
var files = []example{
	{"/var/crank, /run/crank, $XDG_RUNTIME_DIR/crank, /dev/shm/crank-UID-NAMESPACE", "The runtime directory: the first " +
		"of these that can be used. /var/crank is used only if it exists."},
	{"NAME.ctl", "In the runtime directory: the control socket, for crankctl(1)."},
	{"NAME.conf", "In the runtime directory: the command that last became current, and the one before it. A file that crank did not write is left alone."},
}

// ManPage returns the manual page crank(1), for man(7).
func ManPage() string {
	var b strings.Builder
	b.WriteString(".TH CRANK 1\n.SH NAME\ncrank \\- container init that replaces its app without losing a connection\n")
	b.WriteString(".SH SYNOPSIS\n.B crank\n.RI [ flags ]\n.RB [ \\-\\- ]\n.RI [ command \" [\" arg \" ...]]\"\n")
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n.SH OPTIONS\n%s\n", roff(summary), roff(rules))
	for _, group := range groups {
		fmt.Fprintf(&b, ".SS %s\n", roff(group))
		for _, s := range inGroup(group) {
			fmt.Fprintf(&b, ".TP\n%s\n%s\n", manFlag(s), roff(s.Doc+s.where()))
		}
	}
	manRows(&b, "PROFILES", profileRows())
	fmt.Fprintf(&b, ".PP\nThe variables are those for %s. %s\n", roff(exampleBinds), roff(profileRules))
	manRows(&b, "SIGNALS", signalRows)
	manRows(&b, "FILES", files)
	b.WriteString(".SH EXIT STATUS\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(e.code), roff(e.doc))
	}
	b.WriteString(".SH EXAMPLES\n")
	for _, e := range examples {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(e.line), roff(e.doc))
	}
	b.WriteString(".SH SEE ALSO\n.BR crankctl (1),\n.BR sd_listen_fds (3),\n.BR sd_notify (3)\n")
	return b.String()
}

func manFlag(s Setting) string {
	if s.Arg == "" {
		return ".B " + roff("-"+s.Flag)
	}
	return fmt.Sprintf(".BI %s \" %s\"", roff("-"+s.Flag), roff(s.Arg))
}

func manRows(b *strings.Builder, section string, rows []example) {
	fmt.Fprintf(b, ".SH %s\n", section)
	for _, row := range rows {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(row.line), roff(row.doc))
	}
}

// roff makes text safe for man(7): a plain - would be printed as a hyphen, and no text here begins
// with a dot or a quote, which would be a request.
var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`)

func roff(text string) string { return roffEscapes.Replace(text) }
