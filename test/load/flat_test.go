package load

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/processes"
)

// soak is `make soak`.
var soak = flag.Bool("soak", false, "TestFlat: ten times as many swaps and messages")

// TestFlat swaps a thousand times to an app that says a hundred things each time. What crank has after the first tenth
// of that it has at the end.
const (
	flatSwaps    = 1_000
	flatMessages = 100
	samples      = 10
	// growth is how much more memory there may be at the end: of the -soak what is asked of crank, of the short form, which
	// compares with a hundred swaps, a bit more.
	growth, shortGrowth = 1 << 20, 2 << 20
)

// usage is what crank has.
type usage struct {
	descriptors, goroutines, threads, children, zombies int
	anonymous                                           int // bytes: memory that is not a page of a file
}

func TestFlat(t *testing.T) {
	t.Parallel()
	i := startOn(t, []string{web, local, secure}, []string{"-settle", "0", "-http", "unix://DIR/http.sock"}, talkative()...)
	swaps, limit := flatSwaps, shortGrowth
	if *soak {
		swaps, limit = 10*flatSwaps, growth
	}
	began := time.Now()
	before := i.swapAndSample(swaps / 10)
	after := i.swapAndSample(swaps - swaps/10)
	took := time.Since(began)

	for deadline := time.Now().Add(patience); !flat(before, after) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // something is about to end
		now := i.usage()
		now.anonymous = after.anonymous
		after = now
	}
	said := i.counted(`crank_notify_messages_total{key="STATUS"}`)
	text := fmt.Sprintf("%d swaps, %d notifications, %v for each swap with its notifications.\n\n%s",
		swaps, said, (took / time.Duration(swaps)).Round(time.Millisecond), flatTable(swaps, before, after))
	t.Log(text)
	if !flat(before, after) {
		t.Errorf("from %+v to %+v", before, after)
	}
	if grown := after.anonymous - before.anonymous; grown > limit {
		t.Errorf("%d bytes more memory", grown)
	}
	if want := (swaps + 1) * flatMessages; said != want {
		t.Errorf("crank has understood %d messages, want %d", said, want)
	}
	if *soak && *update && !t.Failed() {
		const begin, end = "<!-- soak: make soak SOAK_FLAGS=-update -->", "<!-- end of soak -->"
		if err := markdown.Splice("../../docs/guarantees.md", begin, end, text); err != nil {
			t.Error(err)
		}
	}
}

func talkative() []string {
	return []string{filepath.Join(bin, "everything"), "-messages", strconv.Itoa(flatMessages)}
}

// swapAndSample swaps so often, and returns what crank had in the last tenth: the median of its memory, and of the rest the
// least, which is without what was about to end.
func (i *instance) swapAndSample(swaps int) usage {
	i.t.Helper()
	var found []usage
	for n := range swaps {
		i.swap(talkative()...)
		if left := swaps - 1 - n; left < swaps/10 && left%max(1, swaps/10/samples) == 0 {
			found = append(found, i.usage())
		}
	}
	least := found[0]
	var anonymous []int
	for _, u := range found {
		least.descriptors = min(least.descriptors, u.descriptors)
		least.goroutines = min(least.goroutines, u.goroutines)
		least.children = min(least.children, u.children)
		least.zombies = min(least.zombies, u.zombies)
		least.threads = min(least.threads, u.threads)
		anonymous = append(anonymous, u.anonymous)
	}
	slices.Sort(anonymous)
	least.anonymous = anonymous[len(anonymous)/2]
	return least
}

// flat allows for a few threads: the Go runtime starts one more where all others are in calls, and keeps it.
func flat(before, after usage) bool {
	return after.descriptors <= before.descriptors && after.goroutines <= before.goroutines && after.zombies == 0 &&
		after.children == 1 && after.threads <= before.threads+3
}

func flatTable(swaps int, before, after usage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| swaps | descriptors | goroutines | threads | anonymous memory | children | zombies |\n|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range []struct {
		swaps int
		usage usage
	}{{swaps / 10, before}, {swaps, after}} {
		u := row.usage
		fmt.Fprintf(&b, "| %d | %d | %d | %d | %d KiB | %d | %d |\n",
			row.swaps, u.descriptors, u.goroutines, u.threads, u.anonymous>>10, u.children, u.zombies)
	}
	return b.String()
}

// usage waits for the old generations to go and returns what crank has then.
func (i *instance) usage() (u usage) {
	i.t.Helper()
	i.idle()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := i.client.Info(ctx)
	if err != nil {
		i.t.Fatal(err)
	}
	u.goroutines = info.Goroutines
	pid := i.process.Process.Pid
	u.descriptors, u.children, u.zombies = processes.Descriptors(pid), len(processes.Children(pid)), len(processes.Zombies(pid))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		i.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Threads: %d", &u.threads)
		fmt.Sscanf(line, "RssAnon: %d kB", &u.anonymous)
	}
	u.anonymous <<= 10
	return u
}

// counted returns a counter's value.
func (i *instance) counted(metric string) int {
	i.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialUnix(filepath.Join(i.dir, "http.sock"))}}
	resp, err := client.Get("http://crank/metrics")
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), metric+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				i.t.Fatal(err)
			}
			return int(n)
		}
	}
	i.t.Fatalf("there is no %s", metric)
	return 0
}
