package launch

import (
	"os"
	"strconv"
	"syscall"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// Which process belongs to which generation? Its main process, and the one that was launched; all in the process
// group or session of one of them; all descendants of those; and, for one that has left the group and lost its parents, the one that
// CRANK_GENERATION names in the environment that it was executed with.

// owner returns the generation that pid belongs to; 0: to none.
func (l *Launcher) owner(t proc.Table, pid int) int {
	self := os.Getpid()
	l.mu.Lock()
	defer l.mu.Unlock()
	last := 0
	for range len(t) + 1 {
		e, ok := t[pid]
		if !ok || pid == self {
			break
		}
		for n, ch := range l.children {
			if heads(ch.main, t, e) || ch.launched != ch.main && heads(ch.launched, t, e) {
				return n
			}
		}
		if probe := l.probeOf(e); probe != nil {
			return probe.generation
		}
		last, pid = pid, e.Parent
	}
	if pid != self || last == 0 {
		return 0
	}
	return l.claimed(last)
}

// heads reports whether e is p, or of the process group or session that p has made. A process that has the
// number of p after its end is another one, and so is its group.
func heads(p *proc.Process, t proc.Table, e proc.Entry) bool {
	id := p.PID()
	if _, taken := t[id]; taken && p.IsGone() {
		return false
	}
	return e.PID == id || e.Group == id || e.Session == id
}

// isProbe reports whether a process is a probe, or belongs to one.
func (l *Launcher) isProbe(e proc.Entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.probeOf(e) != nil
}

// probeOf returns the probe that a process is, or belongs to. mu is held.
func (l *Launcher) probeOf(e proc.Entry) *child {
	for main, probe := range l.probes {
		if e.PID == main || e.Group == main || e.Session == main {
			return probe
		}
	}
	return nil
}

// claimed returns the generation that an adopted process says it was started for.
func (l *Launcher) claimed(pid int) int {
	value, ok := proc.Environ(pid, "CRANK_GENERATION")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(value)
	if name, _ := proc.Environ(pid, "CRANK_NAME"); err != nil || name != l.cfg.Name || l.children[n] == nil {
		return 0
	}
	return n
}

// members returns the processes of the generation besides the main one and those of its probes; none where they cannot be seen.
func (ch *child) members() []proc.Entry {
	all, _ := ch.lookForMembers()
	return all
}

// lookForMembers is members; known is false where crank had not the means to look, and is to try again.
func (ch *child) lookForMembers() (all []proc.Entry, known bool) {
	main := ch.mainPID()
	t, known := ch.l.processes()
	for pid, e := range t {
		if !e.Zombie && pid != main && !ch.l.isProbe(e) && ch.l.owner(t, pid) == ch.generation {
			all = append(all, e)
		}
	}
	return all, known
}

// processes reads all; known is false where crank had not the means to, which is logged once, until it has them again.
func (l *Launcher) processes() (t proc.Table, known bool) {
	t, err := proc.Processes()
	if err == nil {
		l.blind.Store(false)
		return t, true
	}
	if exhausted := proc.Exhausted(err); !exhausted || !l.blind.Swap(true) {
		l.cfg.Log.Error(err, "cannot look for processes that an app has left behind")
	}
	return nil, !proc.Exhausted(err)
}

// Others implements supervisor.Child. Where crank cannot look it says that there is one, so that it is asked again.
func (ch *child) Others(sig syscall.Signal) int {
	if ch.l.alone {
		return 0
	}
	members, known := ch.lookForMembers()
	if !known {
		return 1
	}
	ch.l.signalAll(members, sig)
	return len(members)
}

// Strays implements supervisor.Launcher; where crank cannot look, as Others.
func (l *Launcher) Strays(sig syscall.Signal) int {
	if l.alone {
		return 0
	}
	t, known := l.processes()
	if !known {
		return 1
	}
	var strays []proc.Entry
	self := os.Getpid()
	for pid, e := range t {
		if !e.Zombie && pid != self && t.Within(pid, self) && l.owner(t, pid) == 0 {
			strays = append(strays, e)
		}
	}
	l.signalAll(strays, sig)
	return len(strays)
}

func (l *Launcher) signalAll(entries []proc.Entry, sig syscall.Signal) {
	if sig == 0 {
		return
	}
	for _, e := range entries {
		if err := proc.SignalEntry(e, sig); err != nil {
			l.cfg.Log.Error(err, "cannot signal a process", "pid", e.PID)
		}
	}
}

// strange returns why a message on the sockets of generation n does not count; empty: it does. A
// sender that is dead already cannot be looked up, and is fine: the socket's address is secret. Where it is not, an abstract
// one, only crank's own user and root may send without being known to be of the generation.
func (l *Launcher) strange(n int, from notify.Sender) string {
	switch from.PID {
	case 0:
		return "its sender is in another pid namespace"
	case os.Getpid():
		return "its sender is crank itself"
	}
	l.mu.Lock()
	own := l.children[n]
	known := own != nil && from.PID == own.PID()
	l.mu.Unlock()
	if known {
		return ""
	}
	t := lineage(from.PID)
	switch owner := l.owner(t, from.PID); {
	case owner == n:
		return ""
	case owner != 0:
		return "its sender belongs to generation " + strconv.Itoa(owner)
	case from.Abstract && from.UID != os.Geteuid() && from.UID != 0:
		return "its sender is of another user, and everybody can find an abstract address"
	}
	return ""
}

// lineage reads a process and its ancestors.
func lineage(pid int) proc.Table {
	t := proc.Table{}
	for pid > 0 && t[pid].PID == 0 {
		e, ok := proc.Lookup(pid)
		if !ok {
			break
		}
		t[pid], pid = e, e.Parent
	}
	return t
}
