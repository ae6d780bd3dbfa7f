package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/demo/hammer"
)

func TestQuantile(t *testing.T) {
	var hundred sample
	for n := range 100 {
		hundred = append(hundred, float64(100-n))
	}
	tests := []struct {
		s    sample
		q    float64
		want float64
	}{
		{hundred, 0, 1}, {hundred, 0.01, 1}, {hundred, 0.25, 25}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100},
		{sample{7}, 0, 7}, {sample{7}, 0.5, 7}, {sample{7}, 1, 7},
		{sample{3, 1, 2}, 0.5, 2}, {sample{4, 1}, 0.5, 1},
	}
	for _, tt := range tests {
		if got := tt.s.quantile(tt.q); got != tt.want {
			t.Errorf("quantile %v of %v is %v, want %v", tt.q, tt.s, got, tt.want)
		}
	}
	if got := (sample{}).median(); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestText(t *testing.T) {
	s := sample{1e6, 2e6, 30e6}
	for got, want := range map[string]string{
		s.extremes(milliseconds):                    "2.00 ms (1.00 to 30.0)",
		s.quartiles(microseconds):                   "2000 µs (1000 to 30000)",
		mebibytes.text(10.25 * (1 << 20)):           "10.2 MiB",
		digits(-0.004):                              "-0.00",
		digits(123.4):                               "123",
		atMost(2.8, "x").aim(2).String():            "at most 2.8x, aim 2x",
		lessThan(1, "MiB").String():                 "less than 1 MiB",
		atMost(0, "").String():                      "at most 0",
		limit{}.String() + "nothing":                "nothing",
		usage{3 << 20, 2 << 20, 1 << 20}.String():   "3.00 MiB (PSS 2.00, anonymous 1.00)",
		(&race{}).failed() + "not there":            "not there",
		strings.Join(row{ratio: 2}.cells()[4:], ""): "2.00",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	tests := []struct {
		l    limit
		v    float64
		want string
	}{
		{atMost(2.8, "x"), 2.8, "yes"}, {atMost(2.8, "x"), 2.81, "NO"},
		{atMost(2.8, "x").aim(2), 2.1, "yes"}, {atMost(2.8, "x").aim(2), 2, "yes, and the aim"}, {atMost(2.8, "x").aim(2), 3, "NO"},
		{atLeast(0.9, "x"), 0.9, "yes"}, {atLeast(0.9, "x"), 0.89, "NO"},
		{lessThan(1, "MiB"), 0.99, "yes"}, {lessThan(1, "MiB"), 1, "NO"},
		{atMost(0, ""), 0, "yes"}, {atMost(0, ""), 1, "NO"},
		{atMost(2, "x"), math.NaN(), "not measured"},
		{limit{}, 5, ""},
	}
	for _, tt := range tests {
		if got := tt.l.verdict(tt.v); got != tt.want {
			t.Errorf("%v is %v: %q, want %q", tt.v, tt.l, got, tt.want)
		}
	}
}

func TestCompareSamples(t *testing.T) {
	show := func(s sample) string { return s.extremes(milliseconds) }
	r := compareSamples(sample{4e6}, "tini", sample{1e6, 2e6, 9e6}, show)
	if r.ratio != 2 || r.value != 2 || r.peer != "tini" || r.other != "2.00 ms (1.00 to 9.00)" {
		t.Errorf("%+v", r)
	}
	r = compareSamples(sample{4e6}, "tini", nil, show)
	if !math.IsNaN(r.ratio) || !math.IsNaN(r.value) || r.other != "not installed" {
		t.Errorf("%+v", r)
	}
}

// tableRows are rows as they come: two of one target, and one that stands alone.
var tableRows = []row{
	{what: "a thing", crank: "4 ms", peer: "tini", other: "2 ms", ratio: 2, value: 2, target: atMost(2.8, "x")},
	{what: "a thing", crank: "4 ms", peer: "dumb-init", other: "not installed", ratio: math.NaN(), value: math.NaN()},
	{what: "x|y", crank: "1", ratio: math.NaN(), value: 1, target: atMost(0, "")},
}

func TestMarkdown(t *testing.T) {
	const want = `| what | crank | compared with | its figure | ratio | target | reached |
|---|--:|---|--:|--:|---|---|
| a thing | 4 ms | tini | 2 ms | 2.00 | at most 2.8x | yes |
|  |  | dumb-init | not installed |  |  |  |
| x\|y | 1 |  |  |  | at most 0 | NO |
`
	if got := inMarkdown(tableRows); got != want {
		t.Errorf("got\n%s", got)
	}
	var text bytes.Buffer
	printTable(&text, tableRows)
	if lines := strings.Split(text.String(), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[2], "       ") || !strings.HasSuffix(lines[3], "NO") {
		t.Errorf("got\n%s", &text)
	}
}

// TestDocument: there is a place for the table.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/performance.md")
	if err != nil || !strings.Contains(string(text), tableBegin) || !strings.Contains(string(text), tableEnd) {
		t.Errorf("docs/performance.md: %v, or the lines of the table are missing", err)
	}
}

// TestTables: what the tables of this program say of each other.
func TestTables(t *testing.T) {
	keys := map[string]bool{}
	for _, b := range benchmarks {
		if b.run == nil || len(b.targets) == 0 {
			t.Errorf("%s measures nothing", b.name)
		}
		if _, err := os.Stat(b.name + ".go"); err != nil {
			t.Error(err)
		}
		for _, peer := range b.peers {
			if peers[peer].program == "" || peers[peer].debian == "" {
				t.Errorf("%s: the peer %q is in no table", b.name, peer)
			}
		}
		for _, target := range b.targets {
			if keys[target.key] || target.word == "" {
				t.Errorf("%s: the target %q is there twice, or is none", b.name, target.key)
			}
			keys[target.key] = true
		}
	}
	for _, s := range servers {
		for _, peer := range s.needs {
			if peers[peer].program == "" {
				t.Errorf("%s needs the peer %q, which is in no table", s.name, peer)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"-only start,nothing":          `no benchmark "nothing"`,
		"-quick -markdown x":           "-markdown",
		"-only start -markdown x":      "-markdown",
		"-crank /bin/true -markdown x": "-markdown",
		"-colour":                      "colour",
	} {
		var stderr bytes.Buffer
		if code := run(strings.Fields(args), &stderr, &stderr); code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%q: code %d, %q", args, code, &stderr)
		}
	}
	chosen, err := choose("probe,start")
	if err != nil || len(chosen) != 2 || chosen[0].name != "start" {
		t.Errorf("%v, %v: want the order of the table", chosen, err)
	}
}

func TestParse(t *testing.T) {
	busy, stolen := parseStat([]byte("cpu  100 20 30 999 888 7 8 60 5 5\ncpu0 1 1 1 1\n"))
	if busy != 1650*time.Millisecond || stolen != 600*time.Millisecond {
		t.Errorf("busy %v, stolen %v", busy, stolen)
	}
	u := parseRollup("00400000-7ffc ---p 00000000 00:00 0 [rollup]\nRss:  13172 kB\nPss:   100 kB\nPss_Dirty: 1 kB\nAnonymous:   4388 kB\n")
	if u != (usage{rss: 13172 * 1024, pss: 100 * 1024, anonymous: 4388 * 1024}) {
		t.Errorf("%+v", u)
	}
}

// TestOwn: what this test reads of itself is there, and more of it later.
func TestOwn(t *testing.T) {
	u, err := memoryOf(os.Getpid())
	if err != nil || u.rss < u.anonymous || u.anonymous <= 0 {
		t.Errorf("%+v, %v", u, err)
	}
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	w := startWatch()
	for now, end := time.Now(), time.Now().Add(50*time.Millisecond); now.Before(end); now = time.Now() {
	}
	if after, _ := cpuOf(os.Getpid()); after <= before {
		t.Errorf("%v ns of CPU, then %v", before, after)
	}
	if others, stolen := w.others(); others < 0 || others > 1 || stolen < 0 || stolen > 1 {
		t.Errorf("others used %v, and %v was stolen", others, stolen)
	}
	if all := descendants(os.Getpid()); all[0] != os.Getpid() {
		t.Errorf("descendants %v", all)
	}
}

func TestRunWhole(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	w, err := runWhole(null, environment("A=b"), "/bin/sh", "-c", `[ "$A" = b ] && [ -z "$CRANK_NAME" ]`)
	if err != nil || w.took <= 0 {
		t.Errorf("%+v, %v", w, err)
	}
	for _, argv := range [][]string{{"/bin/sh", "-c", "exit 3"}, {"/bin/sh", "-c", "kill -9 $$"}, {"/nowhere"}} {
		if _, err := runWhole(null, environment(), argv...); err == nil {
			t.Errorf("%v: no error", argv)
		}
	}
}

func TestCheckLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	os.WriteFile(path, []byte("a\nb\n"), 0o644)
	if err := checkLines(path, 2); err != nil {
		t.Error(err)
	}
	if err := checkLines(path, 3); err == nil {
		t.Error("a line is missing, and nobody notices")
	}
}

func TestRace(t *testing.T) {
	r := &race{swapped: 6}
	calm := hammer.Report{Requests: 100, P99: time.Millisecond}
	r.add(hammer.Report{Requests: 100, P99: time.Millisecond, Lost: 4}, hammer.Report{Requests: 100, P99: 2 * time.Millisecond})
	r.add(calm, hammer.Report{Requests: 50, P99: 3 * time.Millisecond, Lost: 3, LostKept: 2, Kinds: map[hammer.Kind]int{hammer.Reset: 1, hammer.EOF: 2}})
	if got, want := r.failed(), "3 of 150 in 6 swaps: EOF 2, reset 1, 2 of them on a kept connection, and 4 without a swap"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.add(calm, hammer.Report{P99: 9 * time.Millisecond})
	if got := r.ratio(); got != 3 {
		t.Errorf("ratio %v, want that of the medians", got)
	}
}
