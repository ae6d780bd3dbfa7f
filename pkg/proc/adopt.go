package proc

import (
	"fmt"
	"os"

	"github.com/crankctl/crank/pkg/linux"
)

// Adopt returns a Process for one that was found in /proc and that Start has not started: a descendant that
// the app calls its main one. Its parent may be another than crank, and reap it unseen. SignalGroup signals the
// group that it leads, or group if it is in that one; else it signals the process alone, since who else would
// be hit is not known. The error says that it has ended, and matches os.ErrProcessDone. The caller calls Gone
// in the end.
func Adopt(e Entry, group int) (*Process, error) {
	fd, err := linux.PidfdOpen(e.PID)
	if err != nil {
		fd = -1 // ended, or no pidfds here: the next look tells
	}
	p := &Process{pid: e.PID, pidfd: fd, start: e.Start, group: group}
	if now, ok := p.Look(); !ok || now.Zombie {
		p.Gone()
		return nil, fmt.Errorf("cannot adopt process %d: %w", e.PID, os.ErrProcessDone)
	}
	return p, nil
}

// End returns how an adopted process ended whose status another parent takes, or has taken. ended is false while it
// runs, and where crank is the parent: Reap tells then. known is false where it was reaped on a kernel before 6.15.
func (p *Process) End() (e Exit, ended, known bool) {
	now, ok := p.Look()
	switch {
	case p.gone, ok && !now.Zombie, ok && now.Parent == os.Getpid():
		return Exit{}, false, false
	case ok:
		return exitOf(p.pid, now.Status), true, true
	}
	status, known := linux.PidfdStatus(p.pidfd)
	return exitOf(p.pid, status), true, known
}

// Look reads the process's entry; ok is false where it was reaped, though its pid may belong to another one.
func (p *Process) Look() (e Entry, ok bool) {
	if p.gone {
		return Entry{}, false
	}
	e, ok = Lookup(p.pid)
	return e, ok && (p.start == 0 || e.Start == p.start)
}
