package saved

import (
	"slices"

	"github.com/crankctl/crank/pkg/supervisor"
)

// The reasons of [Choose], for the log.
const (
	WhyNone        = "no command yet"
	WhyCommandLine = "the command line"
	WhyReplaced    = "saved: it was put in the place of this command line"
	WhyStale       = "the command line: the saved command is for another one"
	WhySaved       = "saved: there is no command on the command line"
)

// Choose decides what runs first: the command on the command line, unless rec holds one that was
// put in the place of exactly that; without one whatever rec holds. ok tells whether rec is there.
//
//	command line   saved            runs
//	-              -                nothing: first.IsZero()
//	-              any              the saved one
//	A              -                A
//	A              base A           the saved one, so that a restart keeps a hot update
//	A              base B, or none  A, so that another command line wins over an old file
//
// previous is what a rollback would return to, nil for none; it is not taken from a stale record.
func Choose(commandLine []string, rec Record, ok bool) (first supervisor.Command, previous *supervisor.Command, why string) {
	fromLine := supervisor.Command{Argv: slices.Clone(commandLine)}
	switch {
	case len(commandLine) == 0 && !ok:
		return supervisor.Command{}, nil, WhyNone
	case len(commandLine) == 0:
		return rec.Command, rec.Previous, WhySaved
	case !ok:
		return fromLine, nil, WhyCommandLine
	case !slices.Equal(commandLine, rec.Base):
		return fromLine, nil, WhyStale
	case rec.Command.Equal(fromLine):
		return fromLine, rec.Previous, WhyCommandLine
	}
	return rec.Command, rec.Previous, WhyReplaced
}
