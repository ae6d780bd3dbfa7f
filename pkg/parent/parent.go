// Package parent tells the service manager above crank how it is going, as sd_notify(3) has it.
package parent

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/crankctl/crank/pkg/supervisor"
)

// Notifier speaks to one service manager.
type Notifier struct {
	conn  net.Conn
	clock func() (usec int64)
	said  said
}

// said is what the service manager knows.
type said struct {
	ready, reloading, stopping bool
	current                    int
	status                     string
}

// Supervisor is what is told about; supervisor.Supervisor's comments apply.
type Supervisor interface {
	Status() *supervisor.Status
	Events(seq int64) ([]supervisor.Event, <-chan struct{})
	Done() <-chan struct{}
}

// Open connects to address, the value of NOTIFY_SOCKET: a path, or "@name" for an abstract socket.
// monotonic returns CLOCK_MONOTONIC in microseconds.
func Open(address string, monotonic func() int64) (*Notifier, error) {
	conn, err := net.Dial("unixgram", address) // package net reads @ as abstract too
	if err != nil {
		return nil, fmt.Errorf("cannot reach the service manager at NOTIFY_SOCKET=%s: %w", address, err)
	}
	return &Notifier{conn: conn, clock: monotonic}, nil
}

// Follow tells until s is done, then closes the connection. A manager that does not listen any more is
// not waited for.
func (n *Notifier) Follow(s Supervisor) {
	defer n.conn.Close()
	for {
		_, newer := s.Events(0)
		n.tell(s.Status())
		select {
		case <-newer:
		case <-s.Done():
			n.tell(s.Status())
			return
		}
	}
}

// tell says what has changed. A swap is a reload for the manager; it begins and ends as one.
func (n *Notifier) tell(st *supervisor.Status) {
	var lines []string
	now := said{
		ready:     n.said.ready || st.Current != 0,
		reloading: st.Current != 0 && st.Candidate != 0,
		stopping:  st.Stopping,
		current:   st.Current,
		status:    statusLine(st),
	}
	// A swap can begin and end between two looks.
	swapped := n.said.current != 0 && now.current > n.said.current
	switch {
	case now.stopping && !n.said.stopping:
		lines = append(lines, "STOPPING=1")
	case now.stopping:
	case now.reloading && !n.said.reloading:
		n.send(n.reloading()...)
	case now.ready && !n.said.ready:
		lines = append(lines, "READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid()))
	case n.said.reloading && !now.reloading:
		lines = append(lines, "READY=1")
	case swapped && !now.reloading:
		n.send(n.reloading()...)
		lines = append(lines, "READY=1")
	}
	if now.status != n.said.status {
		lines = append(lines, "STATUS="+now.status)
	}
	n.said = now
	n.send(lines...)
}

func (n *Notifier) reloading() []string {
	return []string{"RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", n.clock())}
}

func (n *Notifier) send(lines ...string) {
	if len(lines) > 0 {
		_, _ = n.conn.Write([]byte(strings.Join(lines, "\n"))) // a manager that does not listen is not waited for
	}
}

// statusLine is what systemctl status shows.
func statusLine(st *supervisor.Status) string {
	if !st.Ready {
		return "not ready: " + st.Reason
	}
	line := fmt.Sprintf("generation %d is ready", st.Current)
	for _, g := range st.Generations {
		if g.Generation == st.Current && g.Text != "" {
			line += ": " + g.Text
		}
	}
	if st.Candidate != 0 {
		line += fmt.Sprintf("; generation %d is on its way", st.Candidate)
	}
	return line
}
