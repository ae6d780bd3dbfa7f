package parent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// script is a supervisor that goes through a list of states.
type script struct {
	status atomic.Pointer[supervisor.Status]
	events atomic.Pointer[[]supervisor.Event]
	newer  chan struct{}
	said   chan struct{}
	done   chan struct{}
}

func (s *script) Status() *supervisor.Status { return s.status.Load() }
func (s *script) Said() <-chan struct{}      { return s.said }
func (s *script) Stalled() time.Duration     { return 0 }
func (s *script) Done() <-chan struct{}      { return s.done }

// Events returns each event once.
func (s *script) Events(int64) ([]supervisor.Event, <-chan struct{}) {
	if events := s.events.Swap(nil); events != nil {
		return *events, s.newer
	}
	return nil, s.newer
}

// telling is a Notifier that follows a script, and the manager that it reports to.
type telling struct {
	*testing.T
	*script
	manager *net.UnixConn
	ended   chan struct{}
	over    sync.Once
}

// follow starts reporting st. A change of only the status is sent at most once per interval.
func follow(t *testing.T, interval time.Duration, st supervisor.Status) *telling {
	t.Helper()
	return followed(t, interval, 0, st)
}

func followed(t *testing.T, interval, watchdog time.Duration, st supervisor.Status) *telling {
	t.Helper()
	address := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(address, 0, func() int64 { return 42 })
	if err != nil {
		t.Fatal(err)
	}
	n.interval, n.watchdog = interval, watchdog
	f := &telling{T: t, manager: manager, ended: make(chan struct{}),
		script: &script{newer: make(chan struct{}), said: make(chan struct{}), done: make(chan struct{})}}
	f.status.Store(&st)
	go func() { n.Follow(f.script); close(f.ended) }()
	t.Cleanup(func() {
		f.end()
		manager.Close()
	})
	return f
}

// end stops crank. It returns when everything has been sent.
func (f *telling) end() {
	f.Helper()
	f.over.Do(func() { close(f.done) })
	select {
	case <-f.ended:
	case <-time.After(time.Minute):
		f.Fatal("it does not end")
	}
}

// becomes publishes a new state, with the events that led to it.
func (f *telling) becomes(st supervisor.Status, events ...supervisor.Event) {
	f.status.Store(&st)
	f.events.Store(&events)
	f.newer <- struct{}{}
}

// says publishes a new STATUS.
func (f *telling) says(text string) {
	st := ready(1, text)
	f.status.Store(&st)
	f.said <- struct{}{}
}

func (f *telling) expect(want ...string) {
	f.Helper()
	for _, w := range want {
		if got := receive(f.T, f.manager); got != w {
			f.Errorf("got %q, want %q", got, w)
		}
	}
}

func ready(n int, text string) supervisor.Status {
	return supervisor.Status{Current: n, Ready: true, Generations: []supervisor.GenerationStatus{{Generation: n, Text: text}}}
}

const reloading = "RELOADING=1\nMONOTONIC_USEC=42"

func readyLine() string {
	return fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=generation 1 is ready", os.Getpid())
}

// TestStatus: a STATUS that the app sends after READY reaches the manager, in one line, and a swap shows that of the new generation.
func TestStatus(t *testing.T) {
	f := follow(t, 0, supervisor.Status{Candidate: 1, Reason: "generation 1 is starting",
		Generations: []supervisor.GenerationStatus{{Generation: 1, Text: "30 %"}}})
	f.expect("STATUS=not ready: generation 1 is starting: 30 %")
	f.becomes(ready(1, ""))
	f.expect(readyLine())
	f.says("serving")
	f.expect("STATUS=generation 1 is ready: serving")
	f.says("a\nREADY=1\r\x00b")
	f.expect("STATUS=generation 1 is ready: a READY=1  b")
	f.says("")
	f.expect("STATUS=generation 1 is ready")
	st := ready(1, "serving")
	st.Candidate, st.Generations = 2, append(st.Generations, supervisor.GenerationStatus{Generation: 2, Text: "warm"})
	f.becomes(st)
	f.expect(reloading, "STATUS=generation 1 is ready: serving; generation 2 is starting: warm")
	f.becomes(ready(2, "warm"))
	f.expect("READY=1\nSTATUS=generation 2 is ready: warm")
	f.becomes(supervisor.Status{Stopping: true, Reason: "crank is shutting down",
		Generations: []supervisor.GenerationStatus{{Generation: 2, Text: "12 requests left"}}})
	f.expect("STOPPING=1\nSTATUS=not ready: crank is shutting down: 12 requests left")
}

// TestStatusIsLimited: of many, the last one is sent after the interval, or with the next change of state.
func TestStatusIsLimited(t *testing.T) {
	f := follow(t, time.Hour, ready(1, ""))
	f.expect(readyLine())
	for i := range 100 {
		f.says(fmt.Sprint("request ", i))
	}
	f.becomes(supervisor.Status{Stopping: true, Reason: "crank is shutting down", Current: 1, Generations: ready(1, "request 99").Generations})
	f.expect("STOPPING=1\nSTATUS=not ready: crank is shutting down: request 99")

	f = follow(t, 10*time.Millisecond, ready(1, ""))
	f.expect(readyLine())
	for i := range 100 {
		f.says(fmt.Sprint("request ", i))
	}
	told := 0
	for last := ""; last != "STATUS=generation 1 is ready: request 99"; told++ {
		last = receive(t, f.manager)
	}
	t.Logf("of 100, %d were sent", told)
}

// TestReloads: the app's own reload is a reload for the manager too, however short, and so is a swap that fails between two looks.
func TestReloads(t *testing.T) {
	f := follow(t, 0, ready(1, ""))
	f.expect(readyLine())
	st := ready(1, "")
	st.Generations[0].Reloading = true
	f.becomes(st)
	f.expect(reloading)
	f.becomes(ready(1, ""), supervisor.Event{Kind: "reloaded"})
	f.expect("READY=1")
	for _, kind := range []string{"reloaded", "overdue", "failed"} {
		f.becomes(ready(1, ""), supervisor.Event{Kind: "reloading"}, supervisor.Event{Kind: kind})
		f.expect(reloading, "READY=1")
	}
	f.becomes(supervisor.Status{Stopping: true, Reason: "crank is shutting down"}, supervisor.Event{Kind: "failed"})
	f.expect("STOPPING=1\nSTATUS=not ready: crank is shutting down")
}

// TestExtend: more time for the app is more time for crank, if the manager has a timeout too.
func TestExtend(t *testing.T) {
	g := supervisor.GenerationStatus{Generation: 1, State: supervisor.Starting, Deadline: time.Now().Add(time.Hour)}
	starting := func() supervisor.Status {
		return supervisor.Status{Candidate: 1, Reason: "generation 1 is starting", Generations: []supervisor.GenerationStatus{g}}
	}
	f := follow(t, 0, starting())
	f.expect("STATUS=not ready: generation 1 is starting")
	for range 2 {
		g.Extended += time.Minute
		f.becomes(starting())
		f.extends()
	}
	f.becomes(starting())
	g.State, g.Extended = supervisor.Ready, time.Minute // means nothing to the manager
	st := ready(1, "")
	st.Generations[0] = g
	f.becomes(st)
	f.expect(readyLine())
	g.State, g.Extended = supervisor.Stopping, 0
	stopping := func() supervisor.Status {
		return supervisor.Status{Stopping: true, Reason: "crank is shutting down", Generations: []supervisor.GenerationStatus{g, {Generation: 2}}}
	}
	f.becomes(stopping())
	f.expect("STOPPING=1\nSTATUS=not ready: crank is shutting down")
	g.Extended = time.Minute
	f.becomes(stopping())
	f.extends()
}

// extends expects a request to the manager for the time up to the deadline, an hour from the start of the test.
func (f *telling) extends() {
	f.Helper()
	usec := 0
	got := receive(f.T, f.manager)
	if _, err := fmt.Sscanf(got, "EXTEND_TIMEOUT_USEC=%d", &usec); err != nil || usec <= 0 || usec > int(time.Hour.Microseconds()) {
		f.Errorf("got %q", got)
	}
}

// TestWatchdog: crank pings the manager as long as its loop runs.
func TestWatchdog(t *testing.T) {
	f := followed(t, 0, 2*time.Millisecond, ready(1, ""))
	f.expect(readyLine(), "WATCHDOG=1", "WATCHDOG=1")

	f = follow(t, 0, ready(1, ""))
	f.expect(readyLine())
	n, err := Open(f.manager.LocalAddr().String(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	n.ping(time.Minute) // the loop hangs
	n.send("STATUS=nothing before this")
	f.expect("STATUS=nothing before this")
	own := fmt.Sprint(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"3000000", own, 3 * time.Second}, {"3000000", "", 3 * time.Second}, {"3000000", "1" + own, 0},
		{"", "", 0}, {"0", own, 0}, {"-1", own, 0}, {"x", own, 0}, {"9223372036854775807", own, 0}, {"18446744073709551615", own, 0},
	} {
		if got := Watchdog(c.usec, c.pid); got != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

// TestManagerDoesNotRead: crank exits anyway.
func TestManagerDoesNotRead(t *testing.T) {
	f := follow(t, 0, ready(1, ""))
	full := make(chan struct{})
	go func() {
		defer close(full)
		for i := range 1000 { // more than fit into the queue of a socket
			st := ready(1, fmt.Sprint(i))
			f.status.Store(&st)
			select {
			case f.said <- struct{}{}:
			case <-time.After(sendTimeout / 10):
				return
			}
		}
	}()
	<-full
	f.end()
}

// TestManagerReadsLater: a manager that did not read for long learns of the READY all the same.
func TestManagerReadsLater(t *testing.T) {
	f := follow(t, 0, supervisor.Status{Reason: "none"})
	f.expect("STATUS=not ready: none")
	other, err := net.Dial("unixgram", f.manager.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for err == nil { // until the queue of the manager's socket is full
		_ = other.SetWriteDeadline(time.Now().Add(sendTimeout / 10))
		_, err = other.Write([]byte("other"))
	}
	f.becomes(ready(1, ""))
	f.becomes(ready(1, "")) // taken once it has given up the message
	for range 1000 {
		if got := receive(t, f.manager); got != "other" {
			if got != readyLine() {
				t.Errorf("got %q, want %q", got, readyLine())
			}
			return
		}
	}
	t.Error("the manager never learns that crank is ready")
}

func TestFollow(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	n, err := Open(address, 0, func() int64 { return 42 })
	if err != nil {
		t.Fatal(err)
	}
	s := &script{newer: make(chan struct{}), done: make(chan struct{})}
	nowReady := fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=generation 1 is ready", os.Getpid())
	steps := []struct {
		status supervisor.Status
		want   []string // what is said, message by message
	}{
		{supervisor.Status{Candidate: 1, Reason: "generation 1 is starting"}, []string{"STATUS=not ready: generation 1 is starting"}},
		{supervisor.Status{Current: 1, Ready: true}, []string{nowReady}},
		{supervisor.Status{Current: 1, Ready: true}, nil},
		{supervisor.Status{Current: 1, Candidate: 2, Ready: true},
			[]string{reloading, "STATUS=generation 1 is ready; generation 2 is starting"}},
		{supervisor.Status{Current: 2, Ready: true, Generations: []supervisor.GenerationStatus{{Generation: 2, Text: "warm"}}},
			[]string{"READY=1\nSTATUS=generation 2 is ready: warm"}},
		{supervisor.Status{Reason: "generation 2 exited 1"}, []string{"STATUS=not ready: generation 2 exited 1"}},
		{supervisor.Status{Current: 3, Ready: true}, []string{"STATUS=generation 3 is ready"}},
		// A swap that was over before anybody looked.
		{supervisor.Status{Current: 4, Ready: true}, []string{reloading, "READY=1\nSTATUS=generation 4 is ready"}},
		{supervisor.Status{Stopping: true, Reason: "crank is shutting down"}, []string{"STOPPING=1\nSTATUS=not ready: crank is shutting down"}},
	}
	ended := make(chan struct{})
	for i, step := range steps {
		s.status.Store(&step.status)
		if i == 0 {
			go func() { n.Follow(s); close(ended) }()
		} else {
			s.newer <- struct{}{}
		}
		for _, want := range step.want {
			if got := receive(t, manager); got != want {
				t.Errorf("step %d: got %q, want %q", i, got, want)
			}
		}
	}
	close(s.done)
	<-ended
}

func receive(t *testing.T, manager *net.UnixConn) string {
	t.Helper()
	if err := manager.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := manager.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "nobody"), 0, nil); err == nil {
		t.Error("no error")
	}
}
