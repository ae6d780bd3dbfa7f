package parent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	newer  chan struct{}
	done   chan struct{}
}

func (s *script) Status() *supervisor.Status                         { return s.status.Load() }
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
	const reloading = "RELOADING=1\nMONOTONIC_USEC=42"
	steps := []struct {
		status supervisor.Status
		want   []string // what is said, message by message
	}{
		{supervisor.Status{Candidate: 1, Reason: "generation 1 is starting"}, []string{"STATUS=not ready: generation 1 is starting"}},
		{supervisor.Status{Current: 1, Ready: true}, []string{ready}},
		{supervisor.Status{Current: 1, Ready: true}, nil},
		{supervisor.Status{Current: 1, Candidate: 2, Ready: true},
			[]string{reloading, "STATUS=generation 1 is ready; generation 2 is on its way"}},
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
	if _, err := Open(filepath.Join(t.TempDir(), "nobody"), nil); err == nil {
		t.Error("no error")
	}
}
