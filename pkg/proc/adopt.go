package proc

import (
	"fmt"
	"os"

	"github.com/crankctl/crank/pkg/linux"
)

// ErrEnded is the error for a process that has ended.
var ErrEnded = os.ErrProcessDone

// Adopt returns a Process for one that was found in /proc and that Start has not started: a descendant that
// the app calls its main one. Its parent may be another than crank, and reap it unseen. SignalGroup signals the
// group that it leads, or group if it is in that one; else it signals the process alone, since who else would
// be hit is not known. The error says that it has ended, and matches ErrEnded. The caller calls Gone
// in the end.
func Adopt(e Entry, group int) (*Process, error) {
	fd, err := linux.PidfdOpen(e.PID)
	if err != nil {
		fd = -1 // ended, or no pidfds here: the next look tells
	}
	p := &Process{pid: e.PID, pidfd: fd, start: e.Start, group: group}
	if now, ok := p.Look(); !ok || now.Zombie {
		p.Gone()
		return nil, fmt.Errorf("cannot adopt process %d: %w", e.PID, ErrEnded)
	}
	return p, nil
}

// EndedUnseen reports whether an adopted process has ended and a process other than crank is to reap it, or has. If crank is its
// parent, Reap reports its end instead.
func (p *Process) EndedUnseen() bool {
	now, ok := p.Look()
	return !p.gone && (!ok || now.Zombie && now.Parent != os.Getpid())
}

// Look reads the process's entry; ok is false where it was reaped, though its pid may belong to another one.
func (p *Process) Look() (e Entry, ok bool) {
	if p.gone {
		return Entry{}, false
	}
	e, ok = Lookup(p.pid)
	return e, ok && (p.start == 0 || e.Start == p.start)
}
