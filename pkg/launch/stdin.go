package launch

import (
	"maps"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/proc"
)

// livesAlone reports whether no other generation than n is alive. Leftover processes count.
func (l *Launcher) livesAlone(n int) bool {
	for other := range l.children {
		if other != n {
			return false
		}
	}
	return true
}

// stdin returns the descriptor that becomes the stdin of a generation. It is crank's own if that one runs alone: two would take input
// from each other, and no descriptor of a running process can be replaced.
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
	logging.Warn(l.cfg.Log, "stdin kept by older generation", "generation", n, "stdin", kind,
		"advice", "restart an app that reads stdin instead of swapping it: use -restart always and crankctl kill")
}

// hasTerminal reports whether crank can hand over the terminal: crank is in the foreground, or the foreground is a group that has ended and
// that crank could not take it back from, since crank's own process group has no id in its pid namespace.
func (l *Launcher) hasTerminal() bool {
	return l.cfg.Terminal && (linux.HasForeground(stdin) || l.terminalStuck && isOver(linux.Foreground(stdin)))
}

// offerTerminal hands the terminal to a generation that was started in the background, once a shell has brought crank to the foreground,
// and continues it: TTIN or TTOU may have stopped it when it used the terminal earlier.
func (l *Launcher) offerTerminal() {
	ch := l.inBackground
	if ch == nil || !linux.HasForeground(stdin) {
		return
	}
	l.inBackground = nil
	group := ch.launched.PID()
	if err := linux.GiveTerminal(stdin, group); err != nil {
		l.cfg.Log.V(1).Info("terminal not handed over", "generation", ch.generation, "cause", err.Error())
		return
	}
	l.terminalGroup = group
	_ = ch.launched.SignalGroup(syscall.SIGCONT) // nothing of it may be left
}

// returnTerminal takes the terminal's foreground back for crank, so that Ctrl-C keeps working and the next generation can have it.
// The foreground may have passed from the generation to another process group that has ended, such as a shell's job. It is
// left to live processes, such as a shell that has put crank in the background.
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
		l.cfg.Log.V(1).Info("terminal not recovered", "cause", err.Error())
	}
}

// returnTerminal takes it back if this is the generation that has it.
func (ch *child) returnTerminal() {
	if ch.l.inBackground == ch {
		ch.l.inBackground = nil
	}
	if ch.launched.PID() == ch.l.terminalGroup {
		ch.l.returnTerminal()
	}
}

// isOver reports whether a process group consists of zombies at most.
func isOver(group int) bool {
	if linux.IsEmptyGroup(group) {
		return true
	}
	zombies, _ := proc.Processes() // others may be hidden (proc(5), hidepid), but not if the zombies are visible
	maps.DeleteFunc(zombies, func(_ int, e proc.Entry) bool { return e.Group != group })
	for _, e := range zombies {
		if !e.Zombie {
			return false
		}
	}
	return len(zombies) > 0
}
