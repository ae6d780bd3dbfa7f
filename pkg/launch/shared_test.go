package launch

import (
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/supervisor"
)

// TestFailedUnexecuted: a candidate that was never executed changed nothing, so any change is another process's.
func TestFailedUnexecuted(t *testing.T) {
	for program, back := range map[string]bool{"/there/is/no/such/program": false, "/bin/true": true} {
		b := newBench(t, nil, "tcp4://127.0.0.1:0")
		fd := b.sockets.Sockets()[0].FD()
		before, err := linux.ReadFlags(fd)
		if err != nil {
			t.Fatal(err)
		}
		launched, err := b.Launch(supervisor.ID{Generation: 1}, supervisor.Command{Argv: []string{program}}, false)
		if err != nil {
			t.Fatal(err)
		}
		ch := launched.(*child)
		<-ch.launched.ExecOver()
		if err := linux.SetFlags(fd, linux.Flags{Status: before.Status ^ syscall.O_NONBLOCK}); err != nil {
			t.Fatal(err)
		}
		ch.Failed()
		now, err := linux.ReadFlags(fd)
		if err != nil || (now == before) != back {
			t.Errorf("%s: the flags are %+v, %v; they were %+v", program, now, err, before)
		}
		b.exit(ch)
		ch.Close()
	}
}
