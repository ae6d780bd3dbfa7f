package parent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/supervisor"
)

// script is a supervisor that goes through a list of states.
type script struct {
	status *supervisor.Status
	newer  chan struct{}
	done   chan struct{}
}

func (s *script) Status() *supervisor.Status                         { return s.status }
func (s *script) Events(int64) ([]supervisor.Event, <-chan struct{}) { return nil, s.newer }
func (s *script) Done() <-chan struct{}                              { return s.done }

func TestFollow(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	n, err := Open(address, func() int64 { return 42 })
	if err != nil {
		t.Fatal(err)
	}
	s := &script{newer: make(chan struct{}), done: make(chan struct{})}
	ready := fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=generation 1 is ready", os.Getpid())
	steps := []struct {
		status supervisor.Status
		want   string // empty: nothing is said
	}{
		{supervisor.Status{Candidate: 1, Reason: "generation 1 is starting"}, "STATUS=not ready: generation 1 is starting"},
		{supervisor.Status{Current: 1, Ready: true}, ready},
		{supervisor.Status{Current: 1, Ready: true}, ""},
		{supervisor.Status{Current: 1, Candidate: 2, Ready: true}, "RELOADING=1\nMONOTONIC_USEC=42\nSTATUS=generation 1 is ready; generation 2 is on its way"},
		{supervisor.Status{Current: 2, Ready: true, Generations: []supervisor.GenerationStatus{{Generation: 2, Text: "warm"}}}, "READY=1\nSTATUS=generation 2 is ready: warm"},
		{supervisor.Status{Reason: "generation 2 exited 1"}, "STATUS=not ready: generation 2 exited 1"},
		{supervisor.Status{Current: 3, Ready: true}, "STATUS=generation 3 is ready"},
		{supervisor.Status{Stopping: true, Reason: "crank is shutting down"}, "STOPPING=1\nSTATUS=not ready: crank is shutting down"},
	}
	ended := make(chan struct{})
	for i, step := range steps {
		s.status = &step.status
		if i == 0 {
			go func() { n.Follow(s); close(ended) }()
		} else {
			s.newer <- struct{}{}
		}
		if step.want == "" {
			continue
		}
		buf := make([]byte, 1000)
		if err := manager.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		length, err := manager.Read(buf)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got := string(buf[:length]); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
	close(s.done)
	<-ended
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "nobody"), nil); err == nil {
		t.Error("no error")
	}
}
