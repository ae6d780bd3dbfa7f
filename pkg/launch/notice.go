package launch

import (
	"os"
	"strconv"
	"time"

	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// onNotice decides whether a message counts, and passes it on. It runs on the receiver's goroutine.
func (ch *child) onNotice(from notify.Sender, m notify.Message) {
	if m.Void != "" {
		ch.voidMessage(from, m.Void)
		return
	}
	if why := ch.l.strange(ch.generation, from); why != "" {
		ch.refuse(from, m, why)
		return
	}
	ch.l.cfg.Observe(m.Keys, false)
	ch.l.resolve(m.MainPID)
	if m.Ready {
		ch.warnOfWrapper(from, m)
	}
	ch.l.notice(ch.generation, m)
}

// voidMessage counts an invalid datagram, of which nothing takes effect. The first one of each generation is logged.
func (ch *child) voidMessage(from notify.Sender, why string) {
	ch.l.cfg.Observe(nil, true)
	if !ch.saidVoid {
		ch.saidVoid = true
		logging.Warn(ch.l.cfg.Log, "invalid notify message ignored", "generation", ch.generation, "sender", from.PID, "cause", why)
	}
}

// Why a message does not count.
const (
	strangeNamespace = "its sender is in another pid namespace"
	strangeSelf      = "its sender is crank itself"
	strangeUser      = "its sender is another user, and any user can send to an abstract address"
	strangeUnknown   = "its sender is not known to belong to this generation"
)

// strange returns why a message on the sockets of generation n does not count; empty: it does. The name of the socket's file hides it
// from other users, but not from the processes of other generations, which may run as a user that can list the directory. So a sender
// that can be looked up must be known to belong to the generation, unless it sent on the pair: having that is proof enough. A
// sender that has ended cannot be looked up, and is accepted, except at an abstract address, which anybody can find: there it must have
// been crank's own user, root, or a user that the generation runs as, which could kill it as well. It blocks like Owner.
func (l *Launcher) strange(n int, from notify.Sender) string {
	switch from.PID {
	case 0:
		return strangeNamespace
	case os.Getpid():
		return strangeSelf
	}
	l.mu.Lock()
	own := l.children[n]
	known := own != nil && from.PID == own.PID() && !own.main.IsGone()
	l.mu.Unlock()
	if known {
		return ""
	}
	switch owner := l.Owner(from.PID); {
	case owner == n:
		return ""
	case owner != 0:
		return "its sender belongs to generation " + strconv.Itoa(owner)
	case from.Inherited:
		return ""
	case runs(from.PID): // checked after Owner, which finds none either if the sender ends meanwhile
		return strangeUnknown
	case from.Abstract && from.UID != os.Geteuid() && from.UID != 0 && (own == nil || !own.runsAs(from.UID)):
		return strangeUser
	}
	return ""
}

// usersAge is how long the users of a generation are remembered, so that a flood of messages does not cause a flood of lookups.
const usersAge = 100 * time.Millisecond

// users are the real user ids of the processes of a generation.
type users struct {
	found map[int]bool
	at    time.Time
}

// runsAs reports whether a process of the generation has this real user id. It blocks like members.
func (ch *child) runsAs(uid int) bool {
	if time.Since(ch.users.at) > usersAge {
		found := map[int]bool{}
		for _, e := range append(ch.members(), proc.Entry{PID: ch.mainPID()}) {
			if uid, ok := proc.User(e.PID); ok {
				found[uid] = true
			}
		}
		ch.users = users{found, time.Now()}
	}
	return ch.users.found[uid]
}

// runs reports whether /proc shows a process that has not ended.
func runs(pid int) bool {
	e, ok := proc.Lookup(pid)
	return ok && !e.Zombie
}

// refuse counts and logs a refused message.
func (ch *child) refuse(from notify.Sender, m notify.Message, why string) {
	ch.l.cfg.Observe(m.Keys, true)
	facts := []any{"generation", ch.generation, "sender", from.PID, "uid", from.UID, "program", proc.Name(from.PID), "cause", why}
	if why != strangeUnknown {
		ch.l.cfg.Log.Info("notify message refused", facts...)
		return
	}
	logging.Warn(ch.l.cfg.Log, "notify message refused", append(facts,
		"hint", "a daemon of the app must keep CRANK_NAME and CRANK_GENERATION in its environment, or write to NOTIFY_FD")...)
}
