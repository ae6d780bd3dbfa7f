package apps

import (
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/instance"
)

// WEBrick calls shutdown(2) on its listening sockets, which ends them for everybody who has a copy: clients are refused
// until crank finds that out and listens again. That is why the document says not to swap it.
func TestWEBrickEndsTheSocket(t *testing.T) {
	p := program{file: "webrick.rb", needs: []string{"ruby"}, debian: "ruby ruby-webrick"}
	p.installed(t)
	if err := exec.Command("ruby", "-e", `require "webrick"`).Run(); err != nil {
		p.missing(t, "WEBrick is not installed")
	}
	i := instance.Start(t, bin, nil, p.build(t, filepath.Join("testdata", p.file))...)
	refused := 0
	for swaps := 0; refused == 0 && swaps < 50; swaps++ { // it is a matter of milliseconds, which nobody may meet
		refused = refusedDuringSwap(t, i)
	}
	if refused == 0 {
		t.Errorf("nobody was refused during 50 swaps of WEBrick: say so in %s", document)
	}
	t.Logf("%d connections were refused, then crank listened again", refused)
}

// refusedDuringSwap swaps and connects all the time, until the swap is over and the socket listens.
func refusedDuringSwap(t *testing.T, i *instance.Instance) (refused int) {
	swapped := make(chan struct{})
	go func() {
		defer close(swapped)
		i.Crankctl("reload")
		i.Crankctl("wait", "-idle")
	}()
	for connected := false; !connected; time.Sleep(time.Millisecond) {
		select {
		case <-swapped:
			connected = true // if this attempt succeeds
		default:
		}
		conn, err := net.Dial("tcp", i.Address)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			refused++
			connected = false
		case errors.Is(err, syscall.ECONNRESET): // it was in the queue when the socket was ended: one more will be refused
			connected = false
		case err != nil:
			t.Fatal(err)
		default:
			conn.Close()
		}
	}
	return refused
}
