package launch

import (
	"fmt"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/sockets"
)

// All generations share the sockets, and crank's own standard descriptors where the app inherits them. Package sockets restores the former.

// snapshot is the shared state that belongs to the app, read before a candidate is started.
type snapshot struct {
	sockets  *sockets.Snapshot
	standard [stderr + 1]linux.Flags
	known    [stderr + 1]bool
}

// snapshot first puts back what a failed candidate that still runs may have changed since.
func (l *Launcher) snapshot() *snapshot {
	for _, ch := range l.children {
		if ch.failed && ch.before == l.newest {
			ch.putBack()
		}
	}
	s := &snapshot{sockets: l.sockets.Snapshot()}
	for fd := range s.standard {
		flags, err := linux.ReadFlags(fd)
		s.standard[fd], s.known[fd] = flags, err == nil
	}
	return s
}

// Tend implements supervisor.Launcher.
func (l *Launcher) Tend() (broken string) {
	for _, d := range l.sockets.Tend() {
		l.logRestored(d)
	}
	l.rivals.tick(time.Now())
	l.offerTerminal()
	return l.logBroken()
}

// logRestored logs damage that was undone; logBroken logs the rest.
func (l *Launcher) logRestored(d sockets.Damage, keysAndValues ...any) {
	const message = "shared socket restored"
	facts := append([]any{"socket", d.Socket.Name(), "bound", d.Socket.Bound(), "cause", d.What}, keysAndValues...)
	switch {
	case d.Err != nil:
	case d.Usual:
		l.cfg.Log.Info(message, facts...)
	default:
		logging.Warn(l.cfg.Log, message, facts...)
	}
}

// logBroken logs damage that could not be undone, once, and its end. It returns a description of the damage.
func (l *Launcher) logBroken() (broken string) {
	now := map[string]bool{}
	var all []string
	for _, d := range l.sockets.Broken() {
		now[d.String()] = true
		if !l.broken[d.String()] {
			logging.Warn(l.cfg.Log, "shared socket damaged; not ready", "socket", d.Socket.Name(), "bound", d.Socket.Bound(), "cause", d.What, "err", d.Err.Error())
		}
		all = append(all, d.Reason())
	}
	if len(l.broken) > 0 && len(now) == 0 {
		l.cfg.Log.Info("shared sockets work again")
	}
	l.broken = now
	return strings.Join(all, "; ")
}

// Failed implements supervisor.Child.
func (ch *child) Failed() {
	if ch.before == nil || !ch.Executed() {
		return // a check has no sockets, and a candidate that was never executed changed nothing
	}
	ch.failed = true
	ch.putBack()
}

// putBack undoes the candidate's changes to the state that belongs to the app. It is called when the candidate fails, and once more when
// its last process is gone, unless another candidate was started meanwhile: the later changes may be that one's.
func (ch *child) putBack() {
	for _, d := range ch.l.sockets.PutBack(ch.before.sockets) {
		ch.l.logRestored(d, "generation", ch.generation)
	}
	for fd, was := range ch.before.standard {
		now, err := linux.ReadFlags(fd)
		if !ch.before.known[fd] || err != nil || now == was {
			continue
		}
		if err := linux.SetFlags(fd, was); err != nil {
			ch.l.cfg.Log.Error(err, "cannot restore descriptor", "fd", fd, "generation", ch.generation)
			continue
		}
		logging.Warn(ch.l.cfg.Log, "shared descriptor restored", "fd", fd, "generation", ch.generation,
			"cause", fmt.Sprintf("its flags were changed (F_SETFL of fcntl(2): %#o instead of %#o)", now.Status, was.Status))
	}
}

// putBackLast is the last putBack, when the candidate has no process left.
func (ch *child) putBackLast() {
	if ch.failed && ch.l.newest == ch.before {
		ch.putBack()
	}
}
