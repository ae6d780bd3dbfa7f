package load

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// flatAfter is how many swaps TestFlat compares with warm.
const (
	warm      = 10
	flatAfter = 1000
)

// usage is what crank has.
type usage struct {
	descriptors, goroutines, threads int
	rss                              string
}

// After a thousand swaps crank has what it had after ten.
func TestFlat(t *testing.T) {
	t.Parallel()
	i := start(t, []string{"-settle", "0"}, app()...)
	for range warm {
		i.swap(app()...)
	}
	before := i.usage()
	for range 50 { // the smallest, without what was just about to end
		now := i.usage()
		before.descriptors = min(before.descriptors, now.descriptors)
		before.goroutines = min(before.goroutines, now.goroutines)
	}
	began := time.Now()
	for range flatAfter {
		i.swap(app()...)
	}
	took := time.Since(began)

	after, deadline := i.usage(), time.Now().Add(patience)
	for (after.descriptors > before.descriptors || after.goroutines > before.goroutines) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // something is about to end
		after = i.usage()
	}
	t.Logf("after %d swaps %+v, after %d more %+v; %v for each", warm, before, flatAfter, after, (took / flatAfter).Round(time.Microsecond))
	if after.descriptors != before.descriptors || after.goroutines != before.goroutines {
		t.Errorf("descriptors %d -> %d, goroutines %d -> %d", before.descriptors, after.descriptors, before.goroutines, after.goroutines)
	}
	if after.threads > before.threads+3 {
		t.Errorf("threads %d -> %d", before.threads, after.threads)
	}
}

// usage waits for the old generations to go and returns what crank has then.
func (i *instance) usage() usage {
	i.t.Helper()
	i.idle()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := i.client.Info(ctx)
	if err != nil {
		i.t.Fatal(err)
	}
	u := usage{goroutines: info.Goroutines}
	proc := fmt.Sprintf("/proc/%d/", i.process.Process.Pid)
	descriptors, err := os.ReadDir(proc + "fd")
	if err != nil {
		i.t.Fatal(err)
	}
	u.descriptors = len(descriptors)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		i.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Threads: %d", &u.threads)
		if kib, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			u.rss = strings.TrimSpace(kib)
		}
	}
	return u
}
