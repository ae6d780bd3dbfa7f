package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// event is a line of go test -json (go doc test2json, go help buildjson).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// running is a package whose tests are running.
type running struct {
	began  time.Time
	tests  map[string]time.Time // those that are running, by name: since when
	output map[string][]string  // by test; "" is the package itself
	order  []string             // of the tests in output
	failed []string
	result string // go test's own line
}

// progress records what is known about the tests, and shows it.
type progress struct {
	out, log io.Writer

	module       string
	began, shown time.Time // shown: when the last line was written
	packages     map[string]*running

	passed, tests int
	failures      []string
	notTested     []string
	known         map[string]bool // of notTested
	interrupted   syscall.Signal
	left          []string // processes that were killed
}

func newProgress(out, log io.Writer) *progress {
	return &progress{out: out, log: log, began: time.Now(), shown: time.Now(), packages: map[string]*running{}, known: map[string]bool{}}
}

// readLines returns the lines of in until EOF. A line may have any length.
func readLines(in io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(in); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	return lines
}

// say writes one or more lines.
func (p *progress) say(format string, args ...any) {
	p.shown = time.Now()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// keep says what also belongs in the log.
func (p *progress) keep(format string, args ...any) {
	p.say(format, args...)
	fmt.Fprintf(p.log, format+"\n", args...)
}

func (p *progress) begin(module string) {
	p.module = module
	p.packages = map[string]*running{}
	p.say("%s: go test compiles; each package starts as soon as its tests are built", module)
}

// broken records that go itself failed. After a failed test this would only repeat it.
func (p *progress) broken(err error) {
	if len(p.failures) == 0 {
		p.failures = append(p.failures, fmt.Sprintf("%s: go test: %v", p.module, err))
	}
}

// line handles a line of go test -json. A line that is not an event is shown as it is.
func (p *progress) line(text string) {
	var e event
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		p.say("%s", strings.TrimSuffix(text, "\n"))
		return
	}
	if e.Action == "build-output" {
		p.say("%s", strings.TrimSuffix(e.Output, "\n"))
	}
	if e.Package == "" { // a failed build is also reported as a failed package
		return
	}
	r := p.packages[e.Package]
	if r == nil {
		r = &running{began: time.Now(), tests: map[string]time.Time{}, output: map[string][]string{}}
		p.packages[e.Package] = r
	}
	if e.Test == "" {
		p.packageEvent(r, e)
	} else {
		p.testEvent(r, e)
	}
}

func (p *progress) testEvent(r *running, e event) {
	switch e.Action {
	case "run", "cont":
		r.tests[e.Test] = time.Now()
	case "pause":
		delete(r.tests, e.Test)
	case "output":
		r.keep(e)
	case "pass", "skip", "fail":
		p.tests++
		delete(r.tests, e.Test)
		p.look(e, r.output[e.Test])
		if e.Action == "fail" {
			r.failed = append(r.failed, e.Test)
		} else {
			delete(r.output, e.Test)
		}
	}
}

func (r *running) keep(e event) {
	if r.output[e.Test] == nil {
		r.order = append(r.order, e.Test)
	}
	r.output[e.Test] = append(r.output[e.Test], e.Output)
}

func (p *progress) packageEvent(r *running, e event) {
	switch e.Action {
	case "output":
		if isResult.MatchString(e.Output) {
			r.result = strings.TrimSuffix(e.Output, "\n")
			return
		}
		r.keep(e)
	case "pass", "skip", "fail":
		delete(p.packages, e.Package)
		p.look(event{Package: e.Package}, r.output[""])
		if e.Action == "fail" {
			p.fail(r, e.Package)
		} else if p.passed++; r.result != "" && e.Action == "pass" {
			p.keep("%s", r.result)
		}
	}
}

// isResult recognises the line that go test itself writes.
var isResult = regexp.MustCompile(`^(ok  |FAIL|\?   )\t`)

// fail shows what a package wrote in its failed tests, and outside of tests.
func (p *progress) fail(r *running, name string) {
	leaves := slices.DeleteFunc(slices.Clone(r.failed), func(test string) bool {
		return slices.ContainsFunc(r.failed, func(other string) bool { return strings.HasPrefix(other, test+"/") })
	})
	for _, test := range leaves {
		p.failures = append(p.failures, name+" "+test)
	}
	if strings.Contains(r.result, "[build failed]") || strings.Contains(r.result, "[setup failed]") {
		p.failures = append(p.failures, name+": cannot be built")
	} else if len(leaves) == 0 {
		p.failures = append(p.failures, name)
	}
	for _, test := range r.order {
		if text := strings.Join(r.output[test], ""); text != "" {
			p.say("%s", strings.TrimSuffix(text, "\n"))
		}
	}
	if r.result == "" {
		r.result = "FAIL\t" + name
	}
	p.keep("%s", r.result)
}

var (
	where = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
	frame = regexp.MustCompile(`^\s*(=== |--- |PASS$|FAIL$)`)
)

// look finds in the output of a test what was not tested: anywhere in a line if the test was skipped, only at the start of a line if it ran,
// since a story shows the conditions that it did not need. A skip without these words counts as well.
func (p *progress) look(e event, output []string) {
	found, said := false, ""
	for _, line := range strings.Split(strings.Join(output, ""), "\n") {
		i := strings.Index(line, "NOT TESTED")
		if i >= 0 && (e.Action == "skip" || strings.HasPrefix(where.ReplaceAllString(strings.TrimSpace(line), ""), "NOT TESTED")) {
			p.missing(strings.Trim(line[i:], " '"), e)
			found = true
		} else if i := strings.Index(line, "NOT COMPARED"); i >= 0 {
			p.missing(line[i:], e)
		} else if !frame.MatchString(line) && strings.TrimSpace(line) != "" {
			said = where.ReplaceAllString(line, "")
		}
	}
	if e.Action == "skip" && !found {
		p.missing("NOT TESTED: "+strings.TrimSpace(said), e)
	}
}

func (p *progress) missing(text string, e event) {
	if e.Action == "skip" || !p.known[text] { // every skip is listed, a text that is only logged once
		p.known[text] = true
		if e.Package != "" {
			text += fmt.Sprintf(" (%s)", strings.TrimSpace(short(e.Package)+" "+e.Test))
		}
		p.notTested = append(p.notTested, text)
	}
}

// short returns a package's path within this module.
func short(name string) string { return strings.TrimPrefix(name, "github.com/crankctl/crank/") }

// tick shows what is running if nothing was shown for a while.
func (p *progress) tick(now time.Time, every time.Duration) {
	if now.Sub(p.shown) < every {
		return
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(p.packages)) {
		all = append(all, short(name)+" "+p.packages[name].longest(now))
	}
	if len(all) == 0 {
		all = []string{"go test compiles"}
	}
	p.say("... after %v: %s", now.Sub(p.began).Round(time.Second), strings.Join(all, ", "))
}

// longest names the test that has been running longest, ignoring those that only wait for a subtest.
func (r *running) longest(now time.Time) string {
	var longest string
	for name, began := range r.tests {
		inner := func(other string) bool { return strings.HasPrefix(other, name+"/") }
		if slices.ContainsFunc(slices.Collect(maps.Keys(r.tests)), inner) {
			continue
		}
		if longest == "" || began.Before(r.tests[longest]) {
			longest = name
		}
	}
	if longest == "" {
		return fmt.Sprintf("(%v)", now.Sub(r.began).Round(time.Second))
	}
	return fmt.Sprintf("%s (%v)", longest, now.Sub(r.tests[longest]).Round(time.Second))
}

// summary lists what was not tested and what failed, and returns the exit code.
func (p *progress) summary() int {
	for _, text := range p.notTested {
		p.keep("%s", text)
	}
	for _, name := range p.failures {
		p.keep("FAILED: %s", name)
	}
	for _, process := range p.left {
		p.keep("left behind and killed: %s", process)
	}
	code, result := 0, "PASS"
	switch {
	case p.interrupted != 0:
		code, result = 128+int(p.interrupted), "INTERRUPTED: "+p.interrupted.String()
	case len(p.failures) > 0 || len(p.left) > 0:
		code, result = 1, "FAIL"
	}
	p.keep("%s: %d packages passed, %d failures, %d tests, %d not tested, in %v",
		result, p.passed, len(p.failures), p.tests, len(p.notTested), time.Since(p.began).Round(time.Second))
	return code
}
