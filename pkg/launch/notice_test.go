package launch

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/notify"
)

// TestVoidMessages: nothing in a datagram with a NUL byte inside counts, whichever socket it came by. Each one is counted as refused, and
// a generation's first is logged.
func TestVoidMessages(t *testing.T) {
	var logged []string
	refused := make(chan bool, 10)
	b := newBench(t, func(c *Config) {
		c.Observe = func(_ []string, r bool) { refused <- r }
		c.Log = funcr.New(func(_, line string) {
			if strings.Contains(line, "notify message is void") {
				logged = append(logged, line)
			}
		}, funcr.Options{})
	})
	ch, out := b.shell(1, `printf 'READY=1\nX\0Y' >&"$NOTIFY_FD"; echo sent > "$OUT"; kill -STOP $$`)
	out.next()
	conn, err := net.Dial("unixgram", ch.receiver.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"READY=1\x00\nSTATUS=x", strings.Repeat("X", notify.MaxDatagram) + "\nREADY=1"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		select {
		case r := <-refused:
			if !r {
				t.Error("a void message counts")
			}
		case s := <-b.notices:
			t.Fatalf("it has an effect: %+v", s.message)
		case <-time.After(patience):
			t.Fatal("it is not counted")
		}
	}
	b.idle(ch)
	if len(logged) != 1 {
		t.Errorf("logged %q, want one line", logged)
	}
}
