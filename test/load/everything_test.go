package load

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/markdown"
)

var (
	long   = flag.Bool("long", false, "TestEverything: ten times as many swaps and requests")
	update = flag.Bool("update", false, "with -long or -soak: write what was found into docs/performance.md or docs/guarantees.md")
)

// proof is one run of all kinds of clients together: at least so many swaps and requests, spread evenly over each other.
type proof struct {
	name            string
	swaps, requests int
	busy            int // processes that do nothing else, for each core
	draining        int // so many generations have to be seen draining at once
}

var proofs = []proof{
	{name: "Swap after swap", swaps: 200, requests: 300_000, draining: 2},
	{name: "Every core busy with two other processes", swaps: 100, requests: 100_000, busy: 2},
}

// TestEverything is the proof that nothing is lost: every kind of client, none of which sends a request again unless it was
// told so, through swap after swap. Each request must be answered, and each connection's client be told before it is closed.
func TestEverything(t *testing.T) {
	var text strings.Builder
	for _, p := range proofs {
		if *long {
			p.swaps, p.requests = 10*p.swaps, 10*p.requests
		}
		t.Run(p.name, func(t *testing.T) { text.WriteString(p.run(t)) })
	}
	if *long && *update && !t.Failed() {
		const begin, end = "<!-- proof: make load LOAD_FLAGS=-update -->", "<!-- end of proof -->"
		if err := markdown.Splice("../../docs/performance.md", begin, end, text.String()); err != nil {
			t.Error(err)
		}
	}
}

// run returns what was seen, in Markdown.
func (p proof) run(t *testing.T) string {
	i := startOn(t, []string{web, secure, local, echo}, []string{"-settle", "0", "-max-draining", "16"}, everything())
	p.starve(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var crowds []*crowd
	for _, k := range kindsOfClients {
		crowds = append(crowds, k.begin(ctx, i.addresses[k.socket]))
	}
	began, minute := time.Now(), time.Now()
	draining := 0
	for n := 1; n <= p.swaps || n <= 10*p.swaps && (!allTold(crowds) || draining < p.draining); n++ {
		i.swap(everything())
		draining = max(draining, i.draining())
		waitFor(t, crowds, p.requests/p.swaps*n)
		if time.Since(minute) > time.Minute {
			minute = time.Now()
			t.Logf("%v: %d swaps, %d requests", time.Since(began).Round(time.Second), n, requests(crowds))
		}
	}
	stop()
	for _, c := range crowds {
		c.clients.Wait()
		c.http2.CloseIdleConnections()
	}
	took := time.Since(began)
	i.idle()
	text := fmt.Sprintf("%s: %d swaps in %v, up to %d generations draining at once.\n\n%s\n",
		p.name, i.good, took.Round(time.Second), draining, table(crowds))
	t.Log(text)
	p.judge(t, crowds)
	if draining < p.draining {
		t.Errorf("at most %d generations were draining at once, want %d", draining, p.draining)
	}
	return text
}

func everything() string { return filepath.Join(bin, "everything") }

// starve keeps every core busy until the end of the test, or of this process.
func (p proof) starve(t *testing.T) {
	for range p.busy * runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while kill -0 $PPID; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
}

// draining returns how many generations are leaving.
func (i *instance) draining() int {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := i.client.PS(ctx, []string{"stopping"}, 0)
	if err != nil {
		i.t.Fatal(err)
	}
	return len(found)
}

func requests(crowds []*crowd) (n int) {
	for _, c := range crowds {
		n += c.seen().Requests
	}
	return n
}

// waitFor waits for so many requests in all.
func waitFor(t *testing.T, crowds []*crowd, n int) {
	t.Helper()
	deadline := time.After(patience)
	for requests(crowds) < n {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("only %d requests, want %d\n%s", requests(crowds), n, table(crowds))
		}
	}
}

// judge fails the test where anything was lost, or a kind of client has not seen what it is there for.
func (p proof) judge(t *testing.T, crowds []*crowd) {
	for _, c := range crowds {
		seen := c.seen()
		for _, err := range seen.Errors {
			t.Errorf("%s: %s", c.name, err)
		}
		switch {
		case seen.Failed > 0:
			t.Errorf("%s: %d failed, %d of them resets", c.name, seen.Failed, seen.Resets)
		case seen.Requests < c.kind.clients:
			t.Errorf("%s: only %d requests", c.name, seen.Requests)
		}
	}
	if !allTold(crowds) {
		t.Error("the clients of long connections have seen too little")
	}
}

// allTold says whether there was, for each kind of long connections, one for each client that was told to leave.
func allTold(crowds []*crowd) bool {
	return !slices.ContainsFunc(crowds, func(c *crowd) bool { return c.long && c.seen().Told < c.kind.clients })
}

// table is in Markdown.
func table(crowds []*crowd) string {
	var b strings.Builder
	b.WriteString("| clients | number | connections | requests | failed | resets | told before the close | repeated | longest |\n" +
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	var sum tally
	number := 0
	for _, c := range crowds {
		seen := c.seen()
		row(&b, c.name, c.kind.clients, seen)
		number += c.kind.clients
		sum.Connections += seen.Connections
		sum.Requests += seen.Requests
		sum.Failed += seen.Failed
		sum.Resets += seen.Resets
		sum.Told += seen.Told
		sum.Repeated += seen.Repeated
		sum.Longest = max(sum.Longest, seen.Longest)
	}
	row(&b, "all", number, sum)
	return b.String()
}

func row(b *strings.Builder, name string, clients int, t tally) {
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d | %d | %d | %v |\n", name, clients, t.Connections, t.Requests, t.Failed, t.Resets,
		t.Told, t.Repeated, t.Longest.Round(time.Millisecond))
}
