package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/programs"
)

// An app that trusts in O_NONBLOCK goes on through swaps and failed ones. The flag belongs to the
// socket that all generations share: one fcntl too many in crank (os.File.Fd has it) would
// block the app that serves in accept, and TERM with it.
func TestAsyncio(t *testing.T) {
	programs.Need(t, "python3")
	script, err := filepath.Abs(filepath.Join("testdata", "asyncio_app.py"))
	if err != nil {
		t.Fatal(err)
	}
	app := []string{"python3", script}
	i := start(t, []string{"-settle", "2s"}, app...) // in which a candidate comes to die
	i.load()
	i.traffic(200)
	for n := range 15 {
		i.kept(kindsOfBroken[n%len(kindsOfBroken)])
		i.nonblocking()
		i.swap(app...)
		i.traffic(20)
		i.nonblocking()
	}
	i.traffic(200)
	i.stop()
	i.idle() // the old ones have all drained: nothing held them up in accept
}

// nonblocking checks the sockets of the app that serves.
func (i *instance) nonblocking() {
	i.t.Helper()
	_, pid := i.current()
	for fd := 3; fd < 5; fd++ {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
		if err != nil {
			i.t.Fatal(err)
		}
		for line := range strings.Lines(string(info)) {
			if text, ok := strings.CutPrefix(line, "flags:"); ok {
				flags, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32)
				if err != nil || flags&syscall.O_NONBLOCK == 0 {
					i.t.Fatalf("descriptor %d of pid %d has the flags %s", fd, pid, text)
				}
			}
		}
	}
}
