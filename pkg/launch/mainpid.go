package launch

import (
	"errors"
	"os"
	"slices"
	"strconv"

	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// The main process of a generation is the one that was launched, until MAINPID= names another. Where the
// launched one ends, crank becomes the parent of the other one and gets its status. Where it stays, it is the
// other one's parent, or an ancestor, and takes that status itself. crank then looks for that end at each Reap, and the
// kernel tells the status (since Linux 6.15). An older kernel does not: the launched one is the main one again.

var errStranger = errors.New("it is no process of this generation")

// PID implements supervisor.Child.
func (ch *child) PID() int { return ch.main.PID() }

// mainPID is PID for any goroutine.
func (ch *child) mainPID() int {
	ch.l.mu.Lock()
	defer ch.l.mu.Unlock()
	return ch.PID()
}

// SetMain implements supervisor.Child.
func (ch *child) SetMain(pid int) error {
	err := ch.setMain(pid)
	if err != nil {
		ch.l.cfg.Observe(nil, true)
	}
	return err
}

func (ch *child) setMain(pid int) error {
	l := ch.l
	if pid == ch.PID() {
		return nil
	}
	next := ch.launched
	if pid != next.PID() || next.IsGone() {
		t := lineage(pid)
		e, ok := t[pid]
		if !ok || e.Zombie {
			return os.ErrProcessDone
		}
		if l.look(t).owner(pid).generation != ch.generation { // its claim is known: see resolve
			return errStranger
		}
		var err error
		if next, err = proc.Adopt(e, ch.launched.PID()); err != nil {
			return err
		}
	}
	ch.follow(next)
	return nil
}

// endedWith takes note of the end of a process, and returns the generation that ends with it; nil: none
// does. The end of the launched process becomes that of the main one, where that was reaped by its parent.
func (l *Launcher) endedWith(e *proc.Exit) *child {
	for _, ch := range l.children {
		if e.PID == ch.main.PID() && !ch.main.IsGone() {
			ch.gone(ch.main) // its pid is free from now on
			return ch
		}
		if e.PID != ch.launched.PID() || ch.launched.IsGone() {
			continue
		}
		ch.gone(ch.launched)
		if ch.main.IsGone() {
			return nil // it has ended before
		}
		if _, ok := ch.main.Look(); ok {
			return nil // crank is its parent now
		}
		status := *e
		if own, ended, known := ch.main.End(); ended && known {
			status = own
		}
		status.PID = ch.main.PID()
		*e = status
		ch.gone(ch.main)
		return ch
	}
	return nil
}

// unseen returns the ends of main processes that no wait4 of crank's tells, and the generations that end with them.
func (l *Launcher) unseen() map[*child]proc.Exit {
	all := map[*child]proc.Exit{}
	for n, ch := range l.children {
		if ch.main == ch.launched {
			continue
		}
		e, ended, known := ch.main.End()
		switch {
		case !ended:
			continue
		case known:
			all[ch] = e
		case ch.launched.IsGone():
			all[ch] = proc.Exit{PID: e.PID, Code: 1} // a success is the last thing that it should be taken for
			l.cfg.Log.Info("the main process has ended, and only its parent knows how: taken for exit code 1", "generation", n, "pid", e.PID)
		default:
			l.cfg.Log.Info("the main process has ended, and only its parent knows how: that is the main one again", "generation", n,
				"pid", e.PID, "parent", ch.launched.PID())
			ch.follow(ch.launched)
			continue
		}
		ch.gone(ch.main)
	}
	return all
}

// follow makes next the main process.
func (ch *child) follow(next *proc.Process) {
	ch.l.mu.Lock()
	defer ch.l.mu.Unlock()
	if ch.main != ch.launched {
		ch.main.Gone() // it goes on as any other process of the generation
	}
	ch.main = next
}

func (ch *child) gone(p *proc.Process) {
	ch.l.mu.Lock()
	defer ch.l.mu.Unlock()
	p.Gone()
}

// signalled returns the process that a signal is for: the main one, or the launched one if that was its
// parent and has reaped it.
func (ch *child) signalled() *proc.Process {
	if ch.main != ch.launched {
		if e, ok := ch.main.Look(); !ok || e.Zombie {
			return ch.launched
		}
	}
	return ch.main
}

// messengers are programs that only pass on what a script says.
var messengers = []string{"systemd-notify", "crankctl"}

// warnOfWrapper says once that READY came from a process that LISTEN_PID does not name. A server that
// checks it, as sd_listen_fds(3) does, has taken no socket then. It runs on the receiver's goroutine.
func (ch *child) warnOfWrapper(from notify.Sender, m notify.Message) {
	ch.l.mu.Lock()
	named, launched := m.MainPID != 0 || ch.main != ch.launched, ch.launched.PID()
	ch.l.mu.Unlock()
	if ch.warned || named || !ch.namesPID() || from.PID == launched {
		return
	}
	e, ok := proc.Lookup(from.PID)
	program := proc.Name(from.PID)
	if !ok || e.Zombie || slices.Contains(messengers, program) {
		return
	}
	cl := ch.l.claims.ask(e)
	cl.wait()
	if _, own, ok := cl.says(); !ok || own == strconv.Itoa(from.PID) {
		return // it was started with crankctl exec, as far as is known
	}
	ch.warned = true
	logging.Warn(ch.l.cfg.Log, "READY=1 sender is not the LISTEN_PID process",
		"generation", ch.generation, "pid", launched, "sender", from.PID, "program", program,
		"hint", "the app may have ignored the sockets: have the wrapper exec it, start it with crankctl exec -- CMD, or use -listen-pid=false")
}
