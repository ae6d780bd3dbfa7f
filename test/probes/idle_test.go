package probes

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestIdleIsSmall: when nobody has asked for a while, crank's program is not in memory any more, and when somebody asks
// again all is as before.
func TestIdleIsSmall(t *testing.T) {
	i := start(t, "127.0.0.1:0", "--", "app")
	i.becomes("/readyz", 200)
	for range 3 {
		before := i.scrape()
		busy := i.programPages()
		i.eventually("crank is small", func() error {
			if now := i.programPages(); now > busy/2 {
				return fmt.Errorf("%d KiB of the program are in memory, %d after a scrape", now, busy)
			}
			return nil
		})
		i.want("/readyz", 200)
		if after := i.scrape(); len(after) != len(before) {
			t.Errorf("%d samples, then %d", len(before), len(after))
		}
	}
}

// programPages returns how much of files crank has in memory, in KiB: that is the program.
func (i *instance) programPages() int {
	i.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.process.Process.Pid))
	if err != nil {
		i.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "RssFile:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	i.t.Fatal("no RssFile")
	return 0
}
