package launch

import (
	"errors"
	"slices"
	"strconv"

	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// The main process of a generation is the launched one, until MAINPID= names another: any live process of the generation,
// whatever its parent. When the named process ends while the launched one still runs, the launched one is the main process again, and the
// generation goes on: a script that calls "systemd-notify --ready --pid=self" names a process that is about to end. systemd
// does not stop a service either when a main process that is not its child ends: it gets no SIGCHLD for it, and looks again only when the
// control group is empty (service_set_main_pidref and service_notify_cgroup_empty_event in its src/core/service.c). When the launched
// one has ended first, the generation ends with the named one. crank reaps it if it is its parent. If another process
// is, crank does not learn the status and assumes a failure. crank checks for such an exit at each Reap.

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
	if err != nil && !errors.Is(err, proc.ErrEnded) {
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
			return proc.ErrEnded
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

// endedWith records the exit of a reaped process, and returns the generation that ends with it; nil: none does.
func (l *Launcher) endedWith(e proc.Exit) *child {
	for _, ch := range l.children {
		switch {
		case e.PID == ch.launched.PID() && !ch.launched.IsGone():
			ch.gone(ch.launched) // its pid may be reused from now on
			if _, ok := ch.main.Look(); ok || ch.main != ch.launched && ch.main.IsGone() {
				return nil // the named one runs, or is about to be reaped by crank, or the generation has ended with it
			}
			ch.follow(ch.launched) // which has reaped the named one, if any
			return ch
		case e.PID == ch.main.PID() && !ch.main.IsGone():
			if ch.takesOver() {
				return nil
			}
			ch.gone(ch.main)
			return ch
		}
	}
	return nil
}

// takesOver makes the launched process, if it runs, the main process again after the named one has ended.
func (ch *child) takesOver() bool {
	if e, ok := ch.launched.Look(); !ok || e.Zombie {
		return false
	}
	ch.follow(ch.launched)
	return true
}

// unseen finds main processes whose exit crank's wait4 does not report, and returns the generations that end with them. How they
// ended only their parents know: they count as failures, since success must not be assumed.
func (l *Launcher) unseen() map[*child]proc.Exit {
	all := map[*child]proc.Exit{}
	for n, ch := range l.children {
		if ch.main == ch.launched || !ch.main.EndedUnseen() || ch.takesOver() || !ch.launched.IsGone() {
			continue // the launched one has ended: Reap is about to be called
		}
		e := proc.Exit{PID: ch.main.PID(), Code: 1}
		l.cfg.Log.Info("exit status unknown; assuming 1", "generation", n, "pid", e.PID, "cause", "another process has reaped the main process")
		all[ch] = e
		ch.gone(ch.main)
	}
	return all
}

// follow makes next the main process.
func (ch *child) follow(next *proc.Process) {
	ch.l.mu.Lock()
	defer ch.l.mu.Unlock()
	if ch.main != ch.launched {
		ch.main.Gone() // it has ended, or goes on as an ordinary process of the generation
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
