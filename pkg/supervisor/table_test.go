package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crankctl/crank/pkg/notify"
)

// A situation is a column of the table in doc.go.
type situation struct {
	name    string
	subject int // the generation that the event is about; 0: there is none
	reach   func(*world)
	check   []string
	command Command // crank's own; none: requests start everything
}

var situations = []situation{
	{name: "idle", subject: 0, reach: func(w *world) {}},
	{name: "startup", subject: 1, reach: func(w *world) {}, command: v1},
	{name: "first", subject: 1, reach: func(w *world) { w.run(v1) }},
	{name: "next", subject: 2, reach: func(w *world) { w.run(v1); w.ready(1); w.run(v2) }},
	{name: "executing", subject: 2, reach: func(w *world) {
		w.run(v1)
		w.ready(1)
		w.kernel.setHang(true)
		w.swap(Request{Trigger: TriggerRun, Change: Change(v2)})
		w.kernel.setHang(false)
	}},
	{name: "checking", subject: 2, reach: func(w *world) { w.run(v1); w.ready(1); w.run(v2) }, check: []string{"/app", "-t"}},
	{name: "settling", subject: 2, reach: func(w *world) { w.run(v1); w.ready(1); w.run(v2); w.ready(2) }},
	{name: "ready", subject: 1, reach: func(w *world) { w.run(v1); w.ready(1) }},
	{name: "leaving", subject: 1, reach: func(w *world) { w.run(v1); w.ready(1); w.run(v2); w.serve(2) }},
	{name: "delay", subject: 1, reach: func(w *world) { w.run(v1); w.ready(1); w.signal(syscall.SIGTERM) }},
	{name: "shutdown", subject: 1, reach: func(w *world) { w.run(v1); w.ready(1); w.signal(syscall.SIGTERM, syscall.SIGTERM) }},
}

// long is more than any test waits.
const long = time.Hour

// probes are probes over the network.
var probes = Readiness{Interval: time.Second, Timeout: time.Second}

// An event is a row of the table in doc.go.
type event struct {
	name string
	cfg  Config // what is not given is long
	do   func(w *world, subject int) string
}

func says(m notify.Message) func(*world, int) string {
	return func(w *world, subject int) string { w.says(subject, m); return "" }
}

// promises has the app say WATCHDOG_USEC.
func promises(period time.Duration) func(*world, int) string {
	return says(notify.Message{WatchdogUsec: uint64(period.Microseconds()), Keys: []string{"WATCHDOG_USEC"}})
}

// lastKind returns the kind of the newest event among those of some kinds.
func (w *world) lastKind(kinds ...string) string {
	for _, e := range slices.Backward(w.events) {
		if slices.Contains(kinds, e.Kind) {
			return e.Kind
		}
	}
	return "none"
}

func passes(d time.Duration) func(*world, int) string {
	return func(w *world, _ int) string { w.pass(d + d/2); return "" }
}

func signals(sig ...syscall.Signal) func(*world, int) string {
	return func(w *world, _ int) string { w.signal(sig...); return "" }
}

// ends ends the subject's main process; in "idle" it is an adopted one that ends.
func ends(code int, sig syscall.Signal, others int) func(*world, int) string {
	return func(w *world, subject int) string {
		switch {
		case subject == 0:
			w.kernel.adopted()
			w.settle()
		case sig != 0:
			w.killed(subject, sig)
		default:
			w.exits(subject, code, others)
		}
		return ""
	}
}

var events = []event{
	{"swap", Config{}, func(w *world, _ int) string {
		_, refused := w.swap(Request{Trigger: TriggerRun, Change: Change(v2)})
		return refused
	}},
	{"swap -force", Config{}, func(w *world, _ int) string {
		_, refused := w.swap(Request{Trigger: TriggerRun, Change: Change(v2), Force: true})
		return refused
	}},
	{"HUP", Config{}, signals(syscall.SIGHUP, syscall.SIGHUP)},
	{"abort", Config{}, func(w *world, _ int) string { return w.abort() }},
	{"kill", Config{}, func(w *world, _ int) string {
		all, err := w.s.Kill(w.t.Context(), KillRequest{Signal: syscall.SIGUSR1})
		w.settle()
		return fmt.Sprint(len(all), w.refusal(err))
	}},
	{"READY", Config{}, says(notify.Message{Ready: true})},
	{"probe good", Config{Ready: probes}, func(w *world, subject int) string { w.probeEnds(subject, nil); return "" }},
	{"probe bad", Config{Ready: probes}, func(w *world, subject int) string {
		w.probeEnds(subject, errors.New("answered 503"))
		w.pass(probes.Interval)
		return "probes " + strconv.Itoa(w.prober.times(subject))
	}},
	{"probe never", Config{Ready: probes}, func(w *world, subject int) string {
		w.probeEnds(subject, errFinal)
		return ""
	}},
	{"probe limit", Config{Ready: Readiness{Exec: []string{"/probe"}, Interval: long, Timeout: time.Second}}, passes(time.Second)},
	{"alive over", Config{Ready: Readiness{Alive: time.Second}}, passes(time.Second)},
	{"failed", Config{}, says(notify.Message{Failed: "no database"})},
	{"STOPPING", Config{}, says(notify.Message{Stopping: true})},
	{"STATUS", Config{}, func(w *world, subject int) string {
		w.says(subject, notify.Message{HasStatus: true, Status: "hello"})
		for _, g := range w.s.Status().Generations {
			if g.Generation == subject {
				return g.Text
			}
		}
		return "nobody"
	}},
	{"EXTEND", Config{Start: time.Second, Stop: time.Second, MaxExtend: time.Hour}, func(w *world, subject int) string {
		w.says(subject, notify.Message{ExtendTimeoutUsec: 60e6})
		for _, g := range w.s.Status().Generations {
			if left := time.Until(g.Deadline); g.Generation == subject && left > time.Second && left <= time.Minute {
				return left.String()
			}
		}
		return ""
	}},
	{"MAINPID", Config{}, func(w *world, subject int) string {
		w.says(subject, notify.Message{MainPID: 2000 + 10*subject})
		for _, g := range w.s.Status().Generations {
			if g.Generation == subject {
				return fmt.Sprint(g.PID)
			}
		}
		return ""
	}},
	{"RELOADING", Config{}, func(w *world, subject int) string {
		w.says(subject, notify.Message{Reloading: true, MonotonicUsec: 7})
		for _, g := range w.s.Status().Generations {
			if g.Reloading {
				return fmt.Sprint(g.Generation, " reloading")
			}
		}
		return ""
	}},
	{"reload over", Config{}, func(w *world, subject int) string {
		w.says(subject, notify.Message{Reloading: true})
		ignored := w.s.Status().Counters.IgnoredNotices
		w.says(subject, notify.Message{Ready: true})
		return fmt.Sprintf("%s, READY ignored %d", w.lastKind("reloading", "reloaded"), w.s.Status().Counters.IgnoredNotices-ignored)
	}},
	{"reload late", Config{Start: 30 * time.Second}, func(w *world, subject int) string {
		w.says(subject, notify.Message{Reloading: true})
		w.pass(10 * time.Second) // a start goes on
		w.pass(20 * time.Second)
		return w.lastKind("reloading", "overdue")
	}},
	{"WATCHDOG_USEC", Config{}, promises(0)},
	{"ping", Config{}, func(w *world, subject int) string {
		promises(10*time.Second)(w, subject)
		for range 3 {
			w.pass(6 * time.Second)
			w.says(subject, notify.Message{Watchdog: notify.WatchdogPing})
		}
		return ""
	}},
	{"no ping", Config{}, func(w *world, subject int) string {
		promises(10*time.Second)(w, subject)
		return passes(10*time.Second)(w, subject)
	}},
	{"trigger", Config{}, says(notify.Message{Watchdog: notify.WatchdogTrigger})},
	{"miss, swap", Config{Watchdog: WatchdogSwap}, says(notify.Message{Watchdog: notify.WatchdogTrigger})},
	{"miss, exit", Config{Watchdog: WatchdogExit}, says(notify.Message{Watchdog: notify.WatchdogTrigger})},
	{"start limit", Config{Start: time.Second}, passes(time.Second)},
	{"settle over", Config{Settle: time.Second}, passes(time.Second)},
	{"stop limit", Config{Stop: time.Second}, passes(time.Second)},
	{"delay over", Config{DrainDelay: time.Second}, passes(time.Second)},
	{"exits 0", Config{}, ends(0, 0, 0)},
	{"exits 3", Config{}, ends(3, 0, 0)},
	{"is killed", Config{}, ends(0, syscall.SIGSEGV, 0)},
	{"leaves some", Config{}, ends(3, 0, 2)},
	{"others go", Config{}, func(w *world, subject int) string {
		ends(3, 0, 2)(w, subject)
		if subject != 0 {
			w.othersGo(subject)
		}
		return ""
	}},
	{"named ends", Config{}, func(w *world, subject int) string {
		w.kernel.namedEnds(subject)
		w.settle()
		for _, g := range w.s.Status().Generations {
			if g.Generation == subject {
				return fmt.Sprint(g.PID)
			}
		}
		return ""
	}},
	{"current dies", Config{}, func(w *world, _ int) string { return ends(4, 0, 0)(w, w.s.Status().Current) }},
	{"TERM", Config{}, signals(syscall.SIGTERM)},
	{"TERM twice", Config{}, signals(syscall.SIGTERM, syscall.SIGTERM)},
	{"USR1", Config{}, signals(syscall.SIGUSR1)},
	{"executed", Config{}, func(w *world, subject int) string { w.kernel.execOver(subject, nil); w.settle(); return "" }},
	{"not executed", Config{}, func(w *world, subject int) string {
		w.kernel.execOver(subject, syscall.EACCES)
		w.settle()
		return ""
	}},
	{"fork fails", Config{}, func(w *world, _ int) string {
		w.kernel.failNextFork(syscall.EAGAIN)
		_, refused := w.swap(Request{Trigger: TriggerRun, Change: Change(v2), Force: true})
		return refused
	}},
	{"exec fails", Config{}, func(w *world, _ int) string {
		w.kernel.failNext(syscall.ENOENT)
		_, refused := w.swap(Request{Trigger: TriggerRun, Change: Change(v2), Force: true})
		return refused
	}},
	{"pause", Config{Start: 5 * time.Second, Settle: 5 * time.Second, Stop: 5 * time.Second, DrainDelay: 5 * time.Second},
		func(w *world, _ int) string { w.pause(time.Minute); return "" }},
	{"backoff over", Config{Restart: RestartAlways}, func(w *world, subject int) string {
		if subject == 0 {
			w.run(v1)
			w.ready(1)
			w.exits(1, 3, 0)
		}
		w.pass(2 * backoffFirst)
		return ""
	}},
}

// TestCells goes through the whole table, and makes every legal move on the way. An illegal one panics.
func TestCells(t *testing.T) {
	made := map[string]bool{}
	ran := 0
	for _, e := range events {
		for _, at := range situations {
			name := e.name + "/" + at.name
			t.Run(name, func(t *testing.T) {
				ran++
				want, ok := cells[name]
				if !ok {
					t.Errorf("there is no case for %s", name)
				}
				synctest.Test(t, func(t *testing.T) { testCell(t, e, at, want, made) })
			})
		}
	}
	if ran < len(events)*len(situations) {
		return // -run has chosen some of them
	}
	if len(cells) != ran {
		t.Errorf("%d cases for %d cells", len(cells), ran)
	}
	for from, all := range legal {
		for _, to := range all {
			move := from.String() + " -> " + to.String()
			if !made[move] {
				t.Errorf("no cell makes the legal move %s", move)
			}
			delete(made, move)
		}
	}
	if len(made) > 0 {
		t.Errorf("moves that are not legal: %v", made)
	}
}

func testCell(t *testing.T, e event, at situation, want string, made map[string]bool) {
	cfg := e.cfg
	for _, d := range []*time.Duration{&cfg.Start, &cfg.Settle, &cfg.Stop, &cfg.DrainDelay} {
		if *d == 0 {
			*d = long
		}
	}
	cfg.Check = at.check
	w := start(t, cfg, at.command, nil)
	at.reach(w)
	before := w.mark()
	result := e.do(w, at.subject)
	if got := w.since(before, result); got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	w.finish() // some moves are made then
	for _, e := range w.events {
		if e.To != "" {
			made[e.From+" -> "+e.To] = true
		}
	}
}

// mark is what the world looked like before an event.
type mark struct {
	signals  map[int]int // how many each generation got
	counters Counters
	outcomes map[int64]Outcome
}

func (w *world) mark() mark {
	m := mark{signals: map[int]int{}, counters: w.s.Status().Counters, outcomes: maps.Clone(w.outcomes)}
	for n := 1; w.kernel.child(n) != nil; n++ {
		m.signals[n] = len(w.kernel.got(n))
	}
	return m
}

// since tells all that has happened since m, in one line: result, the generations, the signals they
// got, what was counted, what those who asked for a swap were told, and Run's exit code.
func (w *world) since(m mark, result string) string {
	parts := []string{w.states()}
	if parts[0] == "" {
		parts[0] = "none"
	}
	if result != "" {
		parts = append(parts, result)
	}
	for n := 1; w.kernel.child(n) != nil; n++ {
		if got := w.kernel.got(n)[m.signals[n]:]; len(got) > 0 {
			parts = append(parts, fmt.Sprintf("%d gets %s", n, strings.Join(got, ", ")))
		}
	}
	st := w.s.Status()
	if st.Current != 0 && !st.Ready {
		parts = append(parts, "not ready")
	}
	if !st.RestartAt.IsZero() {
		parts = append(parts, "backoff")
	}
	for _, c := range []struct {
		name        string
		now, before int64
	}{
		{"ignored", st.Counters.IgnoredNotices, m.counters.IgnoredNotices},
		{"dropped HUPs", st.Counters.DroppedHUPs, m.counters.DroppedHUPs},
		{"gaps", st.Counters.ClockGaps, m.counters.ClockGaps},
	} {
		if c.now != c.before {
			parts = append(parts, fmt.Sprintf("%s %d", c.name, c.now-c.before))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.outcomes)) {
		if _, before := m.outcomes[id]; before {
			continue
		}
		if o := w.outcomes[id]; o.OK {
			parts = append(parts, fmt.Sprintf("%d ok", o.Generation))
		} else {
			parts = append(parts, fmt.Sprintf("%d failed: %s", o.Generation, o.Reason))
		}
	}
	if w.ended {
		parts = append(parts, fmt.Sprintf("exit %d", w.exitCode))
	}
	return strings.Join(parts, "; ")
}

// TestDocTable compares the table in doc.go with the one that is tested.
func TestDocTable(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var columns, rows []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimPrefix(line, "//"), "|")
		if len(fields) == 1 {
			continue
		}
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if columns == nil {
			columns = fields[1:]
			continue
		}
		rows = append(rows, fields[0])
		for i, column := range columns {
			if len(fields) != 1+len(columns) || fields[1+i] == "" {
				t.Errorf("doc.go: %q has no cell for %q", fields[0], column)
			}
			if name := fields[0] + "/" + column; cells[name] == "" {
				t.Errorf("no case for the cell %s", name)
			}
		}
	}
	var wantColumns, wantRows []string
	for _, s := range situations {
		wantColumns = append(wantColumns, s.name)
	}
	for _, e := range events {
		wantRows = append(wantRows, e.name)
	}
	if !slices.Equal(columns, wantColumns) || !slices.Equal(rows, wantRows) {
		t.Errorf("the table in doc.go has the columns %q and rows %q\nwant %q\nand %q", columns, rows, wantColumns, wantRows)
	}
}
