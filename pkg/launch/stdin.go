package launch

import (
	"maps"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/proc"
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

// hasTerminal reports whether crank can hand over the terminal: it is in the foreground, or would be, if its own process group were not of
// an outer pid namespace and could be given back what a generation had that is over.
func (l *Launcher) hasTerminal() bool {
	return l.cfg.Terminal && (linux.HasForeground(stdin) || l.terminalStuck && isOver(linux.Foreground(stdin)))
}

// offerTerminal gives the terminal to a generation that was started in the background, once a shell has brought crank to the foreground,
// and continues it: TTIN or TTOU may have stopped it when it used the terminal before.
func (l *Launcher) offerTerminal() {
	ch := l.inBackground
	if ch == nil || !linux.HasForeground(stdin) {
		return
	}
	l.inBackground = nil
	group := ch.launched.PID()
	if err := linux.GiveTerminal(stdin, group); err != nil {
		l.cfg.Log.V(1).Info("the app does not get the terminal", "generation", ch.generation, "cause", err.Error())
		return
	}
	l.terminalGroup = group
	_ = ch.launched.SignalGroup(syscall.SIGCONT) // nothing of it may be left
}

// returnTerminal gives crank the terminal's foreground back, so that Ctrl-C goes on to mean something and the next generation can have it.
// The foreground may have got from the generation to another process group of which nothing is left, such as a job of a shell's. It is
// left to processes that live, such as the shell that has put crank in the background.
func (l *Launcher) returnTerminal() {
	if l.terminalGroup == 0 {
		return
	}
	if group := linux.Foreground(stdin); group != l.terminalGroup && (group == 0 || !isOver(group)) {
		return
	}
	l.terminalGroup = 0
	err := linux.TakeTerminal(stdin)
	l.terminalStuck = err != nil
	if err != nil {
		l.cfg.Log.V(1).Info("the terminal does not come back", "cause", err.Error())
	}
}

// returnTerminal gives it back if this is the generation that was given it.
func (ch *child) returnTerminal() {
	if ch.l.inBackground == ch {
		ch.l.inBackground = nil
	}
	if ch.launched.PID() == ch.l.terminalGroup {
		ch.l.returnTerminal()
	}
}

// isOver reports whether no process of a group is left, but for zombies.
func isOver(group int) bool {
	if linux.IsEmptyGroup(group) {
		return true
	}
	zombies, _ := proc.Processes() // others may be hidden (proc(5), hidepid), but not from who sees the zombies
	maps.DeleteFunc(zombies, func(_ int, e proc.Entry) bool { return e.Group != group })
	for _, e := range zombies {
		if !e.Zombie {
			return false
		}
	}
	return len(zombies) > 0
}
