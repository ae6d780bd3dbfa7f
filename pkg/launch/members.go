package launch

import (
	"cmp"
	"os"
	"syscall"

	"github.com/crankctl/crank/pkg/proc"
)

// Which process belongs to which generation? Its main process, and the one that was launched; all in the process
// group or session of one of them; all descendants of those; and, for one that has left the group and lost its parents, the one that
// CRANK_GENERATION names in the environment that it was executed with.

// look is what is known about the processes at one moment. It finds the generation of each process only once. It is for one goroutine.
type look struct {
	table   proc.Table
	claims  *claims
	heads   map[int]head // by the pid of a main, launched or probe process, which is also the id of its group and session
	alive   map[int]bool // generations that can own a process
	found   map[int]belonging
	pending []*claim // asked for and not answered yet
}

// head is the owner of a process, a group or a session.
type head struct {
	generation int
	probe      bool
}

// belonging is what was found out about a process.
type belonging struct {
	generation int  // 0: none
	unknown    bool // its generation depends on a claim that is not answered yet
	within     bool // it descends from crank
}

// look records the heads at this moment.
func (l *Launcher) look(t proc.Table) *look {
	k := &look{table: t, claims: l.claims, heads: map[int]head{}, alive: map[int]bool{}, found: map[int]belonging{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	for main, probe := range l.probes {
		k.heads[main] = head{probe.generation, true}
	}
	for n, ch := range l.children {
		k.alive[n] = true
		k.heading(ch.launched, n)
		k.heading(ch.main, n)
	}
	return k
}

// heading makes p a head of a generation. A process that has the pid of p after the end of p is another one, and so is its group.
func (k *look) heading(p *proc.Process, generation int) {
	_, exists := k.table[p.PID()]
	if _, known := k.heads[p.PID()]; !p.IsGone() || !exists && !known {
		k.heads[p.PID()] = head{generation: generation}
	}
}

// head returns the head of a process: by its pid, its group or its session.
func (k *look) head(e proc.Entry) (h head, ok bool) {
	for _, id := range []int{e.PID, e.Group, e.Session} {
		if h, ok = k.heads[id]; ok {
			return h, true
		}
	}
	return head{}, false
}

// isProbe reports whether a process is a probe, or belongs to one.
func (k *look) isProbe(e proc.Entry) bool {
	h, _ := k.head(e)
	return h.probe
}

// owner finds the generation of a process. It does not block.
func (k *look) owner(pid int) (b belonging) {
	self := os.Getpid()
	var path []int // from pid up to the process with the answer
	for {
		e, ok := k.table[pid]
		if !ok || pid == self {
			break
		}
		if b, ok = k.found[pid]; ok {
			break
		}
		path = append(path, pid)
		k.found[pid] = belonging{} // a table is not a snapshot of one moment: parents may form a ring
		if h, ok := k.head(e); ok {
			b = belonging{generation: h.generation, within: true}
			break
		}
		if e.Parent == self {
			b = k.claimed(e)
			break
		}
		pid = e.Parent
	}
	for _, pid := range path {
		k.found[pid] = b
	}
	return b
}

// claimed returns the generation that an adopted process claims. If no generation can own it, its claim is not asked for.
func (k *look) claimed(e proc.Entry) belonging {
	if len(k.alive) == 0 {
		return belonging{within: true}
	}
	cl := k.claims.ask(e)
	if cl.pending() {
		k.pending = append(k.pending, cl)
		return belonging{unknown: true, within: true}
	}
	n, _, _ := cl.says()
	if !k.alive[n] {
		n = 0
	}
	return belonging{generation: n, within: true}
}

// settle waits for the pending claims, for claimTimeout at most, and forgets what was found without them. It is not for the supervisor's
// goroutine.
func (k *look) settle() {
	for _, cl := range k.pending {
		cl.wait()
	}
	if k.pending != nil {
		k.found, k.pending = map[int]belonging{}, nil
	}
}

// Owner returns the generation that a process belongs to; 0: none. It may be called from any goroutine except the supervisor's: it waits
// for the claim of the process, for claimTimeout at most.
func (l *Launcher) Owner(pid int) int {
	k := l.look(lineage(pid))
	if k.owner(pid).unknown {
		k.settle()
	}
	return k.owner(pid).generation
}

// members returns the processes of a generation except its main process and those of its probes, and the processes whose generation is
// not known yet.
func (k *look) members(generation, main int) (all, unknown []proc.Entry) {
	for pid, e := range k.table {
		if e.Zombie || pid == main || k.isProbe(e) {
			continue
		}
		switch b := k.owner(pid); {
		case b.unknown:
			unknown = append(unknown, e)
		case b.generation == generation:
			all = append(all, e)
		}
	}
	return all, unknown
}

// members returns the processes of the generation except the main process and those of its probes; none if they cannot be seen. It waits
// for the claims of orphans, for claimTimeout at most, and is not for the supervisor's goroutine.
func (ch *child) members() []proc.Entry {
	main := ch.mainPID()
	t, _ := ch.l.processes()
	k := ch.l.look(t)
	all, unknown := k.members(ch.generation, main)
	if unknown != nil {
		k.settle()
		all, _ = k.members(ch.generation, main)
	}
	return all
}

// membersNow is members for the supervisor's goroutine: it does not wait. unknown are the processes that may belong to the generation.
// known is false if crank lacked the means to look.
func (ch *child) membersNow() (all, unknown []proc.Entry, known bool) {
	t, known := ch.l.processes()
	all, unknown = ch.l.look(t).members(ch.generation, ch.mainPID())
	return all, unknown, known
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

// Others implements supervisor.Child. If crank does not see all processes, it reports one more, so that the caller asks again.
func (ch *child) Others(sig syscall.Signal) int {
	if ch.l.alone {
		return 0
	}
	return ch.l.signalAll(&ch.missed, sig, ch.membersNow)
}

// Strays implements supervisor.Launcher; if crank does not see all processes, it does as Others does.
func (l *Launcher) Strays(sig syscall.Signal) int {
	if l.alone {
		return 0
	}
	return l.signalAll(&l.missed, sig, l.strays)
}

// strays returns the processes that belong to no generation, in the manner of membersNow.
func (l *Launcher) strays() (all, unknown []proc.Entry, known bool) {
	t, known := l.processes()
	k := l.look(t)
	for pid, e := range t {
		switch b := k.owner(pid); {
		case e.Zombie:
		case b.unknown:
			unknown = append(unknown, e)
		case b.within && b.generation == 0:
			all = append(all, e)
		}
	}
	return all, unknown, known
}

// missed holds signals that were due while crank could not see their targets.
type missed struct {
	one map[identity]syscall.Signal // for a process, if it turns out to be a target
	all syscall.Signal              // for all targets; 0: none
}

// signalAll signals the processes that meant returns, with sig or, if that is 0, with the signal that they missed, and counts them; all
// unknown ones count as one.
func (l *Launcher) signalAll(m *missed, sig syscall.Signal, meant func() (all, unknown []proc.Entry, known bool)) int {
	all, unknown, known := meant()
	if !known {
		m.all = cmp.Or(sig, m.all)
		return 1
	}
	for _, e := range all {
		l.signal(e, cmp.Or(sig, m.one[identityOf(e)], m.all))
	}
	one := map[identity]syscall.Signal{}
	for _, e := range unknown {
		one[identityOf(e)] = cmp.Or(sig, m.one[identityOf(e)], m.all)
	}
	*m = missed{one: one}
	return len(all) + min(len(unknown), 1)
}

func (l *Launcher) signal(e proc.Entry, sig syscall.Signal) {
	if sig == 0 {
		return
	}
	if err := proc.SignalEntry(e, sig); err != nil {
		l.cfg.Log.Error(err, "cannot signal a process", "pid", e.PID)
	}
}

// lineage reads a process and its ancestors. If one ends meanwhile, its child has another parent by then.
func lineage(pid int) proc.Table {
	t, child := proc.Table{}, 0
	for pid > 0 && t[pid].PID == 0 {
		e, ok := proc.Lookup(pid)
		if !ok {
			e, ok = proc.Lookup(child)
			ok = ok && e.Parent != pid
		}
		if !ok {
			break
		}
		t[e.PID], child, pid = e, e.PID, e.Parent
	}
	return t
}

// resolve gets the claims of a process and its ancestors for the supervisor's goroutine, which cannot wait for them: by the time that it
// looks for the owner of the process, its parents may have ended. It blocks for claimTimeout at most, and only if pid descends from crank.
func (l *Launcher) resolve(pid int) {
	t, self := lineage(pid), os.Getpid()
	if !t.Within(pid, self) {
		return
	}
	var all []*claim
	for ; pid != self; pid = t[pid].Parent {
		all = append(all, l.claims.ask(t[pid]))
	}
	for _, cl := range all {
		cl.wait()
	}
}
