// Package metrics counts what crank does, and shows it to Prometheus.
package metrics

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/crankctl/crank/pkg/supervisor"
)

// maxScrapes is how many scrapes are answered at a time; more get 503.
const maxScrapes = 4

// Options are where the numbers come from. Only Status is required; its functions must not block.
type Options struct {
	Status         func() *supervisor.Status
	Listeners      []Listener
	MemoryHeadroom func() (free int64, ok bool) // ok is false where there is no limit
	LogDropped     func() int64
	// The closed lists of label values that other packages have.
	NotifyKeys, ControlVerbs, ControlResults []string
}

// Listener is a socket that crank holds.
type Listener struct {
	Name  string
	Queue func() (length, limit uint32, err error) // an error: it has no queue to look into
	// Damage returns how often crank undid a change to it, and whether it has damage that crank cannot undo.
	Damage func() (restored int64, broken bool)
}

// Metrics is a registry with everything in the table. It is a supervisor.Observer. Its methods can be
// called by any goroutine, and do not block; scrapes wait for each other.
type Metrics struct {
	options    Options
	registry   *prometheus.Registry
	collecting sync.Mutex
	descs      map[string]*prometheus.Desc // of what is read
	counters   map[string]*prometheus.CounterVec
	histograms map[string]prometheus.Histogram
}

// New returns Metrics with everything at zero. Nothing is registered anywhere else, so that a crank
// without -http does without all of this.
func New(o Options) *Metrics {
	if o.MemoryHeadroom == nil {
		o.MemoryHeadroom = func() (int64, bool) { return 0, false }
	}
	if o.LogDropped == nil {
		o.LogDropped = func() int64 { return 0 }
	}
	o.Listeners = unique(o.Listeners)
	m := &Metrics{
		options: o, registry: prometheus.NewRegistry(), descs: map[string]*prometheus.Desc{},
		counters: map[string]*prometheus.CounterVec{}, histograms: map[string]prometheus.Histogram{},
	}
	for _, row := range table {
		m.make(row)
	}
	for _, c := range []prometheus.Collector{m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		m.registry.MustRegister(&oneAtATime{c, &m.collecting})
	}
	return m
}

// unique gives listeners with one name a number each: two series with the same labels are an error.
func unique(listeners []Listener) []Listener {
	seen := map[string]int{}
	all := slices.Clone(listeners)
	for i := range all {
		name := strings.ToValidUTF8(all[i].Name, "?")
		seen[name]++
		if n := seen[name]; n > 1 {
			name = fmt.Sprintf("%s#%d", name, n)
		}
		all[i].Name = name
	}
	return all
}

func (m *Metrics) make(row metric) {
	switch {
	case row.read != nil:
		m.descs[row.name] = prometheus.NewDesc(namespace+row.name, row.help, row.labelNames(), nil)
	case row.kind == histogram:
		m.histograms[row.name] = prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: namespace + row.name, Help: row.help, Buckets: buckets,
		})
	default:
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: namespace + row.name, Help: row.help}, row.labelNames())
		row.eachCombination(&m.options, func(values []string) { vec.WithLabelValues(values...) })
		m.counters[row.name] = vec
	}
}

// Handler returns the page for Prometheus. A collector that fails costs its own series alone.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
		DisableCompression: true, // a compressor takes more memory than all of the rest
	})
}

// oneAtATime is a collector that waits for the others: each one that reads files occupies a thread, and if no more can be created
// the Go runtime ends crank.
type oneAtATime struct {
	prometheus.Collector
	turn *sync.Mutex
}

// Collect implements prometheus.Collector.
func (c *oneAtATime) Collect(to chan<- prometheus.Metric) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.Collector.Collect(to)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		to <- d
	}
	for _, c := range m.counters {
		c.Describe(to)
	}
	for _, h := range m.histograms {
		h.Describe(to)
	}
}

// Collect implements prometheus.Collector. What is read comes from one snapshot.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	status := m.options.Status()
	for _, row := range table {
		if row.read == nil {
			continue
		}
		kind, desc := row.valueType(), m.descs[row.name]
		row.read(&m.options, status, func(value float64, labels ...string) {
			metric, err := prometheus.NewConstMetric(desc, kind, value, labels...)
			if err != nil {
				metric = prometheus.NewInvalidMetric(desc, err)
			}
			to <- metric
		})
	}
	for _, c := range m.counters {
		c.Collect(to)
	}
	for _, h := range m.histograms {
		h.Collect(to)
	}
}

func (m *Metrics) count(name string, labels ...string) {
	m.counters[name].WithLabelValues(labels...).Inc()
}

func (m *Metrics) time(name string, took time.Duration) { m.histograms[name].Observe(took.Seconds()) }

// SwapEnded implements supervisor.Observer.
func (m *Metrics) SwapEnded(trigger supervisor.Trigger, result, reason string, took time.Duration) {
	m.count("swaps_total", string(trigger), result)
	switch result {
	case supervisor.ResultOK:
		m.time("swap_duration_seconds", took)
	case supervisor.ResultFailed:
		m.count("swap_failures_total", reason)
	}
}

// BecameReady implements supervisor.Observer.
func (m *Metrics) BecameReady(took time.Duration) { m.time("start_duration_seconds", took) }

// Stopped implements supervisor.Observer.
func (m *Metrics) Stopped(took time.Duration) { m.time("stop_duration_seconds", took) }

// Exited implements supervisor.Observer.
func (m *Metrics) Exited(in supervisor.State, cause string) {
	m.count("process_exits_total", in.String(), cause)
}

// Killed implements supervisor.Observer.
func (m *Metrics) Killed(phase string) { m.count("kills_total", phase) }

// Signalled implements supervisor.Observer.
func (m *Metrics) Signalled(signal syscall.Signal, action string) {
	m.count("signals_total", signalLabel(signal), action)
}

// Notified counts a message of an app: its keys, or that it was refused.
func (m *Metrics) Notified(keys []string, refused bool) {
	if refused {
		m.count("notify_errors_total")
		return
	}
	for _, key := range keys {
		m.count("notify_messages_total", key)
	}
}

// Requested counts a request on the control socket.
func (m *Metrics) Requested(verb, result string) { m.count("control_requests_total", verb, result) }
