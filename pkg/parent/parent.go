// Package parent reports to the service manager above crank, by sd_notify(3): what a service manager acts on or shows,
// about crank, and about the app on its behalf.
package parent

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/crankctl/crank/pkg/supervisor"
)

const (
	// statusInterval is the minimum time between messages with only a STATUS. Of several in between, only the newest is sent.
	statusInterval = time.Second
	// sendTimeout is how long one message may wait for a manager that does not read, and how long crank then waits to try again.
	sendTimeout = time.Second
)

// Notifier speaks to one service manager.
type Notifier struct {
	conn     net.Conn
	clock    func() (usec int64)
	said     said
	watchdog time.Duration // the period of the manager's watchdog; 0: none
	interval time.Duration // statusInterval
	statusAt time.Time     // of the last STATUS
}

// said is what the service manager knows.
type said struct {
	ready, reloading, stopping bool
	current                    int
	status                     string
	extended                   extended
}

// extended is a deadline that an app has extended. It changes when the app extends it again.
type extended struct {
	generation int
	state      supervisor.State
	by         time.Duration
}

// Supervisor is what is told about; supervisor.Supervisor's comments apply.
type Supervisor interface {
	Status() *supervisor.Status
	Events(seq int64) ([]supervisor.Event, <-chan struct{})
	Said() <-chan struct{}
	Stalled() time.Duration
	Done() <-chan struct{}
}

// Open connects to address, the value of NOTIFY_SOCKET: a path, or "@name" for an abstract socket. watchdog is the value of Watchdog.
// monotonic returns CLOCK_MONOTONIC in microseconds.
func Open(address string, watchdog time.Duration, monotonic func() int64) (*Notifier, error) {
	conn, err := net.Dial("unixgram", address) // package net reads @ as abstract too
	if err != nil {
		return nil, fmt.Errorf("cannot reach the service manager at NOTIFY_SOCKET=%s: %w", address, err)
	}
	return &Notifier{conn: conn, clock: monotonic, watchdog: watchdog, interval: statusInterval}, nil
}

// Watchdog returns the period of the manager's watchdog, from WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)); 0: none.
func Watchdog(usec, pid string) time.Duration {
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/int64(time.Microsecond) || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// Follow sends messages until s is done, then closes the connection. A manager that does not read delays it by a second per message.
func (n *Notifier) Follow(s Supervisor) {
	defer n.conn.Close()
	later := time.NewTimer(0)
	defer later.Stop()
	var pings <-chan time.Time
	if n.watchdog > 1 {
		ticker := time.NewTicker(n.watchdog / 2)
		defer ticker.Stop()
		pings = ticker.C
	}
	seen := int64(0)
	for {
		events, newer := s.Events(seen)
		if len(events) > 0 {
			seen = events[len(events)-1].Seq
		}
		said := s.Said()
		if wait := n.tell(s.Status(), reloadIsOver(events)); wait > 0 {
			later.Reset(wait)
		}
		select {
		case <-newer:
		case <-said:
		case <-later.C:
		case <-pings:
			n.ping(s.Stalled())
		case <-s.Done():
			n.statusAt = time.Time{}
			n.tell(s.Status(), false)
			return
		}
	}
}

// stallLimit is how long the supervisor's loop, which runs once a second, may stall before crank leaves it to the manager's watchdog.
const stallLimit = 3 * time.Second

// ping reports that crank is alive. The app's own watchdog is handled by crank.
func (n *Notifier) ping(stalled time.Duration) {
	if stalled < stallLimit {
		n.send("WATCHDOG=1")
	}
}

// reloadIsOver reports whether a swap has failed, or the app has reloaded itself. Both can start and end between two looks.
func reloadIsOver(events []supervisor.Event) bool {
	return slices.ContainsFunc(events, func(e supervisor.Event) bool {
		return e.Kind == "failed" || e.Kind == "reloaded" || e.Kind == "overdue"
	})
}

// tell says what has changed. A swap is a reload for the manager; it begins and ends as one. So does a reload of the app's own. reloaded
// is true if one has ended since the last call. tell returns how long to wait for the next call at most, 0 for any time: it is too early
// for nothing but a status, or the manager did not read.
func (n *Notifier) tell(st *supervisor.Status, reloaded bool) (wait time.Duration) {
	var lines []string
	before, now := n.said, n.said
	now.ready = now.ready || st.Current != 0
	now.reloading = st.Current != 0 && (st.Candidate != 0 || generation(st, st.Current).Reloading)
	now.stopping, now.current = st.Stopping, st.Current
	// A swap can begin and end between two looks.
	swapped := before.current != 0 && now.current > before.current
	switch {
	case now.stopping && !before.stopping:
		lines = append(lines, "STOPPING=1")
	case now.stopping:
	case now.reloading && !before.reloading:
		n.beginReload()
	case now.ready && !before.ready:
		lines = append(lines, "READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid()))
	case before.reloading && !now.reloading:
		lines = append(lines, "READY=1")
	case before.ready && !now.reloading && (swapped || reloaded):
		n.beginReload()
		lines = append(lines, "READY=1")
	}
	lines = append(lines, extend(st, &now)...)
	if status := statusLine(st); status != before.status {
		wait = time.Until(n.statusAt.Add(n.interval))
		if len(lines) > 0 || now != before || wait <= 0 {
			now.status, wait = status, 0
			lines = append(lines, "STATUS="+status)
		}
	}
	return cmp.Or(n.finish(now, lines), wait)
}

// beginReload says that a reload begins.
func (n *Notifier) beginReload() {
	if n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", n.clock())) {
		n.said.reloading = true
	}
}

// finish sends lines, after which the manager knows now. If it did not read, all that it does not know yet follows after the time that
// finish returns.
func (n *Notifier) finish(now said, lines []string) (retry time.Duration) {
	if now.reloading && !n.said.reloading || !n.send(lines...) {
		return sendTimeout
	}
	if now.status != n.said.status {
		n.statusAt = time.Now()
	}
	n.said = now
	return 0
}

// extend passes on that an app has extended its deadline, if the manager has one as well: while crank starts, reloads or stops.
func extend(st *supervisor.Status, now *said) []string {
	var g supervisor.GenerationStatus
	switch {
	case st.Stopping:
		for _, other := range st.Generations {
			if other.Extended > 0 && other.Deadline.After(g.Deadline) {
				g = other
			}
		}
	case !now.ready || now.reloading:
		g = generation(st, st.Candidate)
	}
	moved := extended{g.Generation, g.State, g.Extended}
	if g.Extended == 0 || moved == now.extended {
		return nil
	}
	now.extended = moved
	return []string{fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", max(time.Until(g.Deadline), 0).Microseconds())}
}

// send returns false if the manager did not read in time. One that is gone misses the message.
func (n *Notifier) send(lines ...string) bool {
	if len(lines) == 0 {
		return true
	}
	_ = n.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err := n.conn.Write([]byte(strings.Join(lines, "\n")))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// statusLine is what systemctl status shows: crank's state, then the STATUS of the app.
func statusLine(st *supervisor.Status) string {
	line := fmt.Sprintf("generation %d is ready", st.Current)
	if !st.Ready {
		line = "not ready: " + st.Reason
	}
	shown := st.Current
	if len(st.Generations) > 0 && shown == 0 { // the newest one is starting, or the last to exit
		shown = st.Generations[len(st.Generations)-1].Generation
	}
	line += colon(generation(st, shown).Text)
	if st.Current != 0 && st.Candidate != 0 {
		line += fmt.Sprintf("; generation %d is starting", st.Candidate) + colon(generation(st, st.Candidate).Text)
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' ' // a newline would begin another assignment
		}
		return r
	}, line)
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// generation returns generation n of st, or the zero value if there is none.
func generation(st *supervisor.Status, n int) (found supervisor.GenerationStatus) {
	for _, g := range st.Generations {
		if g.Generation == n {
			found = g
		}
	}
	return found
}
