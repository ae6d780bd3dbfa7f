package metrics

import (
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/pkg/version"
)

// namespace begins every name.
const namespace = "crank_"

// buckets are for everything that is timed: from an app that is ready at once to one that drains for an hour.
var buckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}

// table is every metric of crank's own.
var table = []metric{
	{name: "build_info", kind: gauge, help: "Always 1. The labels say which build of crank this is.",
		labels: []label{{name: "version"}, {name: "revision"}, {name: "goversion"}, {name: "platform"}}, read: readBuildInfo},

	{name: "ready", kind: gauge, help: "1 if a generation is current and crank is not stopping, as /readyz.",
		read: func(_ *Options, st *supervisor.Status, set setter) { set(number(st.Ready)) }},
	{name: "generation", kind: gauge, help: "Number of the current generation, 0 if there is none.",
		read: func(_ *Options, st *supervisor.Status, set setter) { set(float64(st.Current)) }},
	{name: "process_start_time_seconds", kind: gauge, help: "When the current generation was started, in seconds since the epoch. Absent if there is none.",
		read: readProcessStart},
	{name: "processes", kind: gauge, help: "Generations of the app by state.",
		labels: []label{states}, read: readProcesses},
	{name: "draining", kind: gauge, help: "Generations that have served and are asked to stop, as -max-draining counts them.",
		read: func(_ *Options, st *supervisor.Status, set setter) { set(float64(st.Draining)) }},

	{name: "swaps_total", kind: counter, help: "Swaps that have ended or were refused, the first start among them.",
		labels: []label{{"trigger", triggers}, {"result", fixed(supervisor.Results)}}},
	{name: "swap_failures_total", kind: counter, help: "Swaps that have failed, by reason.",
		labels: []label{{"reason", fixed(supervisor.Reasons)}}},
	{name: "swap_duration_seconds", kind: histogram, help: "Time from the request to the new generation being current, of swaps that succeeded."},
	{name: "start_duration_seconds", kind: histogram, help: "Time from the launch of a generation to its being ready, before it has settled."},
	{name: "stop_duration_seconds", kind: histogram, help: "Time from the stop signal until nothing was left of a generation."},
	{name: "last_swap_success", kind: gauge, help: "1 if the newest swap that has ended succeeded, 0 if it failed. Absent before the first.",
		read: func(_ *Options, st *supervisor.Status, set setter) {
			if st.LastSwap != nil {
				set(number(st.LastSwap.OK))
			}
		}},
	{name: "last_swap_timestamp_seconds", kind: gauge, help: "When that swap ended, in seconds since the epoch. Absent before the first.",
		read: func(_ *Options, st *supervisor.Status, set setter) {
			if st.LastSwap != nil {
				set(seconds(st.LastSwap.Ended))
			}
		}},

	{name: "process_exits_total", kind: counter, help: "Ends of a generation's main process, by the state that it was in; killed: by crank itself.",
		labels: []label{states, {"cause", fixed(supervisor.ExitCauses)}}},
	{name: "kills_total", kind: counter, help: "Generations that crank has killed: a failed candidate (start), one that had served (drain), " +
		"to make room (force), or all that was left when crank ended (shutdown).",
		labels: []label{{"phase", fixed(supervisor.KillPhases)}}},
	{name: "restarts_total", kind: counter, help: "Automatic restarts by -restart.",
		read: func(_ *Options, st *supervisor.Status, set setter) { set(float64(st.Counters.Restarts)) }},
	{name: "reaped_processes_total", kind: counter, help: "Processes whose status was taken, adopted ones included.",
		read: func(_ *Options, st *supervisor.Status, set setter) { set(float64(st.Counters.Reaped)) }},

	{name: "signals_total", kind: counter, help: "Signals that came to crank, and what they led to.",
		labels: []label{{"signal", fixed(append(named(), "other"))}, {"action", fixed(supervisor.Actions)}}},
	{name: "notify_messages_total", kind: counter, help: "Messages of the app by what was understood in them; one with two keys counts for both.",
		labels: []label{{"key", func(o *Options) []string { return o.NotifyKeys }}}},
	{name: "notify_errors_total", kind: counter, help: "Messages that were refused: they were not from the app, named another's process in MAINPID, had a NUL byte inside or were too long."},
	{name: "control_requests_total", kind: counter, help: "Requests on the control socket.",
		labels: []label{{"verb", func(o *Options) []string { return o.ControlVerbs }}, {"result", func(o *Options) []string { return o.ControlResults }}}},

	{name: "listener_queue_connections", kind: gauge, help: "Connections that wait to be accepted. TCP only.",
		labels: []label{{name: "listener"}}, read: readQueue(func(length, _ uint32) uint32 { return length })},
	{name: "listener_queue_limit_connections", kind: gauge, help: "Connections that may wait to be accepted; more are not answered. TCP only.",
		labels: []label{{name: "listener"}}, read: readQueue(func(_, limit uint32) uint32 { return limit })},
	{name: "listener_restored_total", kind: counter, help: "Changes to a shared socket that crank undid: it did not listen, its backlog was smaller, it had a peer, " +
		"its path was gone, or a failed candidate had changed an option.",
		labels: []label{{name: "listener"}}, read: func(o *Options, _ *supervisor.Status, set setter) {
			for _, l := range o.Listeners {
				restored, _ := l.Damage()
				set(float64(restored), l.Name)
			}
		}},
	{name: "listener_broken", kind: gauge, help: "1 if a shared socket has damage that crank cannot undo: crank is then not ready, and its log says what to do.",
		labels: []label{{name: "listener"}}, read: func(o *Options, _ *supervisor.Status, set setter) {
			for _, l := range o.Listeners {
				_, broken := l.Damage()
				set(number(broken), l.Name)
			}
		}},
	{name: "memory_headroom_bytes", kind: gauge, help: "What the container may still use, page cache that is not in use counted as free. Absent without a limit (cgroup v2).",
		read: readHeadroom},
	{name: "clock_gaps_total", kind: counter, help: "Pauses of crank itself of more than 3 seconds; no deadline is charged for them.",
		read: func(_ *Options, st *supervisor.Status, set setter) { set(float64(st.Counters.ClockGaps)) }},
	{name: "log_dropped_total", kind: counter, help: "Lines of crank's own log that nobody read in time.",
		read: func(o *Options, _ *supervisor.Status, set setter) { set(float64(o.LogDropped())) }},
}

type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// metric is one row. With read it is computed at each scrape; without, a method of Metrics counts it.
type metric struct {
	name   string // without namespace
	kind   kind
	help   string
	labels []label
	read   func(o *Options, st *supervisor.Status, set setter)
}

// setter takes one series; without a call there is none.
type setter func(value float64, labels ...string)

// label has a closed list of values, all of which are there from the start; nil: it has none.
type label struct {
	name   string
	values func(*Options) []string
}

var states = label{"state", func(*Options) []string {
	var names []string
	for _, s := range supervisor.States {
		names = append(names, s.String())
	}
	return names
}}

func triggers(*Options) []string {
	var names []string
	for _, t := range supervisor.Triggers {
		names = append(names, string(t))
	}
	return names
}

func fixed(values []string) func(*Options) []string {
	return func(*Options) []string { return values }
}

func (m *metric) labelNames() []string {
	var names []string
	for _, l := range m.labels {
		names = append(names, l.name)
	}
	return names
}

// eachCombination calls each with all label values; without labels once.
func (m *metric) eachCombination(o *Options, each func(values []string)) {
	combinations := [][]string{nil}
	for _, l := range m.labels {
		var longer [][]string
		for _, c := range combinations {
			for _, v := range l.values(o) {
				longer = append(longer, append(c[:len(c):len(c)], v))
			}
		}
		combinations = longer
	}
	for _, c := range combinations {
		each(c)
	}
}

func (m *metric) valueType() prometheus.ValueType {
	if m.kind == counter {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

// signalNames are the signals that are told apart.
var signalNames = []struct {
	signal syscall.Signal
	name   string
}{
	{syscall.SIGHUP, "HUP"}, {syscall.SIGINT, "INT"}, {syscall.SIGTERM, "TERM"}, {syscall.SIGQUIT, "QUIT"},
	{syscall.SIGUSR1, "USR1"}, {syscall.SIGUSR2, "USR2"}, {syscall.SIGWINCH, "WINCH"},
}

func named() []string {
	var names []string
	for _, s := range signalNames {
		names = append(names, s.name)
	}
	return names
}

func signalLabel(signal syscall.Signal) string {
	for _, s := range signalNames {
		if s.signal == signal {
			return s.name
		}
	}
	return "other"
}

func readBuildInfo(_ *Options, _ *supervisor.Status, set setter) {
	v := version.Get()
	set(1, v.Version, v.Revision, v.Go, v.Platform)
}

func readProcessStart(_ *Options, st *supervisor.Status, set setter) {
	for _, g := range st.Generations {
		if g.Generation == st.Current {
			set(seconds(g.Started))
		}
	}
}

func readProcesses(_ *Options, st *supervisor.Status, set setter) {
	count := map[supervisor.State]float64{}
	for _, g := range st.Generations {
		count[g.State]++
	}
	for _, s := range supervisor.States {
		set(count[s], s.String())
	}
}

// readQueue leaves out what has no queue, and what is closed already.
func readQueue(which func(length, limit uint32) uint32) func(*Options, *supervisor.Status, setter) {
	return func(o *Options, _ *supervisor.Status, set setter) {
		for _, l := range o.Listeners {
			if length, limit, err := l.Queue(); err == nil {
				set(float64(which(length, limit)), l.Name)
			}
		}
	}
}

func readHeadroom(o *Options, _ *supervisor.Status, set setter) {
	if free, ok := o.MemoryHeadroom(); ok {
		set(float64(free))
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// seconds is since the epoch, to the millisecond.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
