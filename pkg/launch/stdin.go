package launch

import (
	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
)

// livesAlone reports whether no generation but n lives. Leftover processes count.
func (l *Launcher) livesAlone(n int) bool {
	for other := range l.children {
		if other != n {
			return false
		}
	}
	return true
}

// stdin returns the descriptor that becomes the stdin of a generation. It is crank's own for one that lives alone: two would take the input
// from each other, and no descriptor of a process that runs can be replaced.
func (l *Launcher) stdin(n int, alone bool) int {
	held := l.sockets.Sockets()
	switch {
	case l.cfg.StdinSocket && len(held) > 0:
		return held[0].FD()
	case alone:
		return stdin
	}
	l.warnOfStdin(n)
	return l.null
}

// warnOfStdin logs once that a generation has no stdin, if there may be something to read.
func (l *Launcher) warnOfStdin(n int) {
	kind := ""
	switch {
	case l.cfg.Terminal:
		kind = "terminal"
	case linux.IsPipe(stdin):
		kind = "pipe"
	}
	if kind == "" || l.warnedOfStdin {
		return
	}
	l.warnedOfStdin = true
	logging.Warn(l.cfg.Log, "stdin left to older generation", "generation", n, "stdin", kind,
		"advice", "end an app that reads stdin before the next one starts: crankctl kill, with -restart always")
}

// returnTerminal gives crank the terminal's foreground back, so that Ctrl-C goes on to mean something. It may have got to a process group of
// the generation that is gone by now, such as the foreground job of a shell. It is left to a process that runs, such as the shell that
// has put crank in the background.
func (ch *child) returnTerminal() {
	if !ch.hasTerminal {
		return
	}
	if group := linux.Foreground(stdin); group != ch.launched.PID() && !linux.IsEmptyGroup(group) {
		return
	}
	ch.hasTerminal = false
	if err := linux.TakeTerminal(stdin); err != nil {
		ch.l.cfg.Log.V(1).Info("the terminal does not come back", "cause", err.Error())
	}
}
