package peers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Sections that give the reason of a difference.
const (
	docInit      = "pid1.md#crank-as-an-init"
	docInherited = "pid1.md#beside-tini-dumb-init-and-catatonit"
	docSignals   = "pid1.md#signals-that-are-not-forwarded"
	docNot       = "pid1.md#what-peers-do-and-crank-does-not"
	docRules     = "configuration.md#rules"
	docAddresses = "configuration.md#addresses"
	docFirst     = "configuration.md#which-command-is-run-first"
	docCodes     = "configuration.md#exit-codes"
	docStarter   = "peers.md#what-start_server-does-and-crank-does-not"
)

// who is a program that stories run with.
type who string

const (
	crank     who = "crank"
	tini      who = "tini"
	dumbInit  who = "dumb-init"
	catatonit who = "catatonit"
	starter   who = "start_server"
)

// outcomes are the outcomes of a story, by program. The story does not apply to a program without one.
type outcomes map[who]string

// flags are the options that a program is started with.
type flags map[who][]string

// same is one outcome for crank and these peers.
func same(text string, peers ...who) outcomes {
	all := outcomes{crank: text}
	for _, peer := range peers {
		all[peer] = text
	}
	return all
}

// everybody is one outcome for crank and all inits.
func everybody(text string) outcomes { return same(text, tini, dumbInit, catatonit) }

// but is the same with another outcome for some.
func (o outcomes) but(text string, programs ...who) outcomes {
	for _, program := range programs {
		o[program] = text
	}
	return o
}

// story is something that a user does with a program, and its outcome: a row of a table.
type story struct {
	name  string
	as    mode
	tty   bool // on a terminal
	flags flags
	run   func(r *run) (string, error)
	want  outcomes
	why   string // the reason, if crank differs on purpose
	doc   string // and the section of docs/ that explains it: FILE.md#HEADING
}

// mode is what a program is in its pid namespace.
type mode int

const (
	both    mode = iota // each in turn; the outcome is the same
	pid1                // PID 1
	asChild             // the child of PID 1, and a subreaper where it can be one
)

func (m mode) children() []bool {
	return map[mode][]bool{both: {false, true}, pid1: {false}, asChild: {true}}[m]
}

// suite is a table of stories.
type suite struct {
	name    string // of the peer whose tests these are
	columns []who
	stories []story
	needs   []string // programs
}

// differs reports whether the story lists a difference between crank and a peer.
func (s story) differs() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(s.want)), func(text string) bool { return text != s.want[crank] })
}

// check finds mistakes in a story itself.
func (s story) check() error {
	switch {
	case s.want[crank] == "" || len(s.want) < 2:
		return errors.New("no outcome for crank, or none for a peer")
	case s.differs() != (s.why != ""):
		return fmt.Errorf("its outcomes differ: %v, the reason is %q", s.differs(), s.why)
	case (s.doc != "") != (s.why != ""):
		return fmt.Errorf("the reason is %q, the document %q", s.why, s.doc)
	}
	return nil
}

// judge compares the outcomes of a story with the listed ones. A peer that is not installed has no outcome.
func (s story) judge(got outcomes) error {
	var wrong []error
	for _, program := range slices.Sorted(maps.Keys(got)) {
		seen, want, ours := got[program], s.want[program], s.want[crank]
		switch {
		case seen == want:
		case program == crank:
			wrong = append(wrong, fmt.Errorf("crank: %q, want %q", seen, want))
		case seen == ours:
			wrong = append(wrong, fmt.Errorf("stale difference: %s now does as crank does: %q, no longer %q", program, seen, want))
		default:
			wrong = append(wrong, fmt.Errorf("unlisted difference: %s: %q, want %q", program, seen, want))
		}
	}
	return errors.Join(wrong...)
}

// table returns the stories with outcomes, as Markdown.
func (s suite) table(of func(story) outcomes) string {
	var text strings.Builder
	text.WriteString("| story |")
	for _, column := range s.columns {
		fmt.Fprintf(&text, " %s |", column)
	}
	text.WriteString(" crank does the same? |\n|---|" + strings.Repeat("---|", len(s.columns)+1) + "\n")
	for _, story := range s.stories {
		fmt.Fprintf(&text, "| %s%s |", escape(story.name), s.remark(story))
		cells := of(story)
		for _, column := range s.columns {
			cell := cells[column]
			if _, concerned := story.want[column]; !concerned {
				cell = "-"
			} else if cell == "" {
				cell = "not tested"
			}
			fmt.Fprintf(&text, " %s |", escape(cell))
		}
		fmt.Fprintf(&text, " %s |\n", story.verdict())
	}
	return text.String()
}

// remark returns the mode of a story, if the stories of the suite differ in it.
func (s suite) remark(row story) string {
	if !slices.ContainsFunc(s.stories, func(other story) bool { return other.as != row.as }) {
		return ""
	}
	return map[mode]string{pid1: " (PID 1)", asChild: " (not PID 1)"}[row.as]
}

func escape(text string) string {
	return strings.NewReplacer("|", `\|`, "_", `\_`, "<", `\<`).Replace(text)
}

func (s story) verdict() string {
	if !s.differs() {
		return "yes"
	}
	_, heading, _ := strings.Cut(s.doc, "#")
	return fmt.Sprintf("on purpose: %s ([%s](%s))", escape(s.why), strings.ReplaceAll(heading, "-", " "), s.doc)
}
