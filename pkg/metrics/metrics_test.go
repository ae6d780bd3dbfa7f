package metrics

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/crankctl/crank/pkg/control/server"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

var update = flag.Bool("update", false, "write the golden files and docs/metrics.md")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// options are those of a crank with two listeners, one of them unnamed, and a socket of datagrams.
func options(st *supervisor.Status) Options {
	queue := func(length, limit uint32, err error) func() (uint32, uint32, error) {
		return func() (uint32, uint32, error) { return length, limit, err }
	}
	damage := func(restored int64, broken bool) func() (int64, bool) {
		return func() (int64, bool) { return restored, broken }
	}
	return Options{
		Status: func() *supervisor.Status { return st },
		Listeners: []Listener{
			{"http", queue(3, 4096, nil), damage(2, false)},
			{"tcp://[::]:81", queue(0, 128, nil), damage(0, false)},
			{"dns", queue(0, 0, errors.ErrUnsupported), damage(0, true)},
		},
		MemoryHeadroom: func() (int64, bool) { return 64 << 20, true },
		LogDropped:     func() int64 { return 2 },
		NotifyKeys:     notify.Keys(), ControlVerbs: server.Verbs(), ControlResults: server.Results,
	}
}

// busy is a crank in the middle of a swap.
func busy() *supervisor.Status {
	return &supervisor.Status{
		Ready: true, Current: 4, Candidate: 5, Draining: 1, EverCurrent: true,
		Generations: []supervisor.GenerationStatus{
			{Generation: 2, State: supervisor.Stopping}, {Generation: 3, State: supervisor.Stopping},
			{Generation: 4, State: supervisor.Ready, Started: noon}, {Generation: 5, State: supervisor.Starting, Started: noon.Add(time.Hour)},
		},
		LastSwap: &supervisor.Outcome{OK: true, Ended: noon.Add(1500 * time.Millisecond)},
		Counters: supervisor.Counters{Reaped: 17, ClockGaps: 1, Restarts: 3},
	}
}

// play calls every method that counts.
func play(m *Metrics) {
	m.SwapEnded(supervisor.TriggerStart, supervisor.ResultOK, "", 700*time.Millisecond)
	m.SwapEnded(supervisor.TriggerHUP, supervisor.ResultOK, "", 2*time.Second)
	m.SwapEnded(supervisor.TriggerRun, supervisor.ResultFailed, "timeout", 30*time.Second)
	m.SwapEnded(supervisor.TriggerReload, supervisor.ResultRefused, "", 0)
	m.BecameReady(3 * time.Millisecond)
	m.Stopped(2 * time.Hour)
	m.Exited(supervisor.Starting, "exit")
	m.Exited(supervisor.Stopping, "killed")
	m.Killed("drain")
	m.Signalled(syscall.SIGHUP, "swap")
	m.Signalled(syscall.SIGTTIN, "forwarded")
	m.Notified([]string{"READY", "STATUS"}, false)
	m.Notified([]string{"READY"}, true)
	m.Notified(nil, false)
	m.Requested("run", "failed")
}

// page scrapes, and returns what is crank's own.
func page(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%d %v\n%s", w.Code, w.Header(), w.Body)
	}
	var own strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		switch {
		case !strings.Contains(line, namespace):
		case strings.HasPrefix(line, namespace+"build_info"): // it differs from build to build
			own.WriteString(namespace + "build_info{...} 1\n")
		default:
			own.WriteString(line)
		}
	}
	return own.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if *update && string(want) != got {
		want, err = []byte(got), os.WriteFile(path, []byte(got), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is out of date, go test ./pkg/metrics -update writes it (-file +now):\n%s", path, diff)
	}
}

func TestPage(t *testing.T) {
	golden(t, "testdata/idle.golden", page(t, New(Options{
		Status:     func() *supervisor.Status { return &supervisor.Status{} },
		NotifyKeys: notify.Keys(), ControlVerbs: server.Verbs(), ControlResults: server.Results,
	})))
	m := New(options(busy()))
	play(m)
	golden(t, "testdata/busy.golden", page(t, m))
}

// TestLint: the rules of Prometheus for names, and those of a pedantic registry for consistency.
func TestLint(t *testing.T) {
	for _, st := range []*supervisor.Status{{}, busy()} {
		m := New(options(st))
		play(m)
		pedantic := prometheus.NewPedanticRegistry()
		pedantic.MustRegister(m)
		for _, g := range []prometheus.Gatherer{pedantic, m.registry} {
			problems, err := testutil.GatherAndLint(g)
			if err != nil {
				t.Error(err)
			}
			for _, p := range problems {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	}
}

// TestNothingIsNew: no method adds a series. All of them are there from the start.
func TestNothingIsNew(t *testing.T) {
	m := New(options(busy()))
	before, err := testutil.GatherAndCount(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, trigger := range supervisor.Triggers {
		for _, result := range supervisor.Results {
			m.SwapEnded(trigger, result, supervisor.Reasons[0], 0)
		}
	}
	for _, reason := range supervisor.Reasons {
		m.SwapEnded(supervisor.TriggerRun, supervisor.ResultFailed, reason, 0)
	}
	for _, state := range supervisor.States {
		for _, cause := range supervisor.ExitCauses {
			m.Exited(state, cause)
		}
	}
	for _, phase := range supervisor.KillPhases {
		m.Killed(phase)
	}
	for signal := syscall.Signal(1); signal <= 64; signal++ {
		for _, action := range supervisor.Actions {
			m.Signalled(signal, action)
		}
	}
	m.Notified(notify.Keys(), false)
	for _, verb := range server.Verbs() {
		for _, result := range server.Results {
			m.Requested(verb, result)
		}
	}
	after, err := testutil.GatherAndCount(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("%d series at first, %d now", before, after)
	}
}

// TestListenersOfOneName: names need not be unique, series do.
func TestListenersOfOneName(t *testing.T) {
	o := options(busy())
	o.Listeners[1].Name = "http"
	o.Listeners = append(o.Listeners, o.Listeners[0], Listener{"\xff", o.Listeners[0].Queue, o.Listeners[0].Damage})
	text := page(t, New(o))
	for _, name := range []string{"http", "http#2", "http#3", "?"} {
		if !strings.Contains(text, fmt.Sprintf("crank_listener_queue_connections{listener=%q} ", name)) {
			t.Errorf("no %s in\n%s", name, text)
		}
	}
}

// TestAllAtOnce is for the race detector.
func TestAllAtOnce(t *testing.T) {
	m := New(options(busy()))
	var all sync.WaitGroup
	for range 3 { // fewer than maxScrapes
		all.Go(func() { play(m) })
		all.Go(func() { page(t, m) })
	}
	all.Wait()
}

// TestDocument: docs/metrics.md has a row for each metric.
func TestDocument(t *testing.T) {
	const (
		path  = "../../docs/metrics.md"
		begin = "<!-- The table is printed from pkg/metrics: go test ./pkg/metrics -update -->\n"
		end   = "<!-- end of the table -->\n"
	)
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(document), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has not both marks:\n%s%s", path, begin, end)
	}
	golden(t, path, before+begin+"\n"+markdown()+"\n"+end+after)
}

func markdown() string {
	o := options(busy())
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, row := range table {
		var labels []string
		for _, l := range row.labels {
			text := "`" + l.name + "`"
			if l.values != nil {
				text += ": " + strings.Join(l.values(&o), ", ")
			}
			labels = append(labels, text)
		}
		fmt.Fprintf(&b, "| `%s%s` | %s | %s | %s |\n", namespace, row.name, row.kind,
			strings.ReplaceAll(strings.Join(labels, "; "), "_", `\_`), strings.ReplaceAll(row.help, "_", `\_`))
	}
	return b.String()
}

// TestTable: each row is either read or counted, and a name stands once.
func TestTable(t *testing.T) {
	var names []string
	for _, row := range table {
		if slices.Contains(names, row.name) {
			t.Errorf("%s stands twice", row.name)
		}
		names = append(names, row.name)
		if row.read == nil && row.kind == gauge {
			t.Errorf("%s: nothing sets a gauge that is not read", row.name)
		}
		if row.kind == histogram && (row.read != nil || row.labels != nil) {
			t.Errorf("%s: a histogram has no labels and is not read", row.name)
		}
		for _, l := range row.labels {
			if row.read == nil && l.values == nil {
				t.Errorf("%s: the label %s has no closed list of values", row.name, l.name)
			}
		}
		if !strings.HasSuffix(row.help, ".") {
			t.Errorf("%s: the help is no sentence: %s", row.name, row.help)
		}
	}
}
