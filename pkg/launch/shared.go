package launch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/sockets"
)

// What all generations share is the sockets, and crank's own standard descriptors, where the app has them. See sockets.Damage for what
// becomes of the former.

// snapshot is what belongs to the app of all that is shared, before a candidate is started.
type snapshot struct {
	sockets  *sockets.Snapshot
	standard [stderr + 1]linux.Flags
	known    [stderr + 1]bool
}

// snapshot is taken of what is as it should be: a candidate that has failed, and goes on, may have changed something since.
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
	return l.logBroken()
}

// logRestored logs what was undone; what was not is for logBroken.
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

// logBroken logs once what could not be undone, and once that it is. It returns what is wrong.
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
		return // it is a check, which has no sockets, or has never run: what has changed was somebody else
	}
	ch.failed = true
	ch.putBack()
}

// putBack undoes what the candidate has changed of what is the app's own. It is called when the candidate fails, and again when
// nothing of it is left, since it may have gone on; then only if no other was started meanwhile, whose own that may be.
func (ch *child) putBack() {
	for _, d := range ch.l.sockets.PutBack(ch.before.sockets) {
		ch.l.logRestored(d, "generation", ch.generation)
	}
	for fd, was := range ch.before.standard {
		now, err := linux.ReadFlags(fd)
		if !ch.before.known[fd] || err == nil && now == was {
			continue
		}
		logging.Warn(ch.l.cfg.Log, "shared descriptor restored", "fd", fd, "generation", ch.generation,
			"cause", fmt.Sprintf("its flags were changed (F_SETFL of fcntl(2): %#o instead of %#o)", now.Status, was.Status))
		if err := errors.Join(err, linux.SetFlags(fd, was)); err != nil {
			ch.l.cfg.Log.Error(err, "cannot restore a descriptor", "fd", fd)
		}
	}
}

// putBackLast is putBack when nothing of the candidate is left.
func (ch *child) putBackLast() {
	if ch.failed && ch.l.newest == ch.before {
		ch.putBack()
	}
}
