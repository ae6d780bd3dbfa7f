package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/crankctl/crank/pkg/control"
)

type color string

const (
	red   color = "\x1b[31m"
	green color = "\x1b[32m"
	reset color = "\x1b[0m"

	clearLine = "\r\x1b[K"
)

// paint colors text that goes to stderr, where that is a terminal.
func (s *session) paint(c color, text string) string {
	if !s.colors() {
		return text
	}
	return string(c) + text + string(reset)
}

// json prints v, and reports whether JSON was asked for.
func (s *session) json(v any) (done bool, err error) {
	if s.global.output != "json" {
		return false, nil
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return true, err
	}
	_, err = io.WriteString(s.stdout, escaped(text.String()))
	return true, err
}

// escaped makes JSON harmless for a terminal, and means the same: the encoder escapes the control characters below 0x20 alone.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r < 0x7f || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// say prints a sentence about what was done.
func (s *session) say(format string, args ...any) {
	if !s.global.quiet {
		fmt.Fprintln(s.stdout, clean(fmt.Sprintf(format, args...)))
	}
}

// heading says which of several cranks a table is about.
func (s *session) heading() {
	if s.several {
		fmt.Fprintf(s.stdout, "%s:\n", clean(s.client.Name()))
	}
}

// clean makes text harmless for a terminal: the app, not its operator, chose it, or whoever has taken over the app and answers in
// crank's place.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, text)
}

// commandLine prints words as a shell would take them.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = clean(word)
		if word == "" || strings.ContainsFunc(word, needsQuotes) {
			words[i] = "'" + strings.ReplaceAll(words[i], "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

func needsQuotes(r rune) bool {
	return unicode.IsSpace(r) || strings.ContainsRune("'\"\\$`|&;<>()#!~?[]{}", r)
}

// compact prints a duration in at most two units: 1.2s, 12s, 3m5s, 2h3m, 4d1h.
func compact(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return pair(d, time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "m")
	}
	return pair(d, 24*time.Hour, "d", time.Hour, "h")
}

func pair(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := strconv.Itoa(int(d/big)) + bigName
	if rest := int(d % big / small); rest > 0 {
		text += strconv.Itoa(rest) + smallName
	}
	return text
}

// table prints rows in columns two spaces apart, clean; the first row is the header.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// eventLine is how an event reads, clean and without its time: "web: generation 4 ready         1.2s".
func eventLine(name string, e control.Event) string {
	subject := name + ":"
	if e.Generation != 0 {
		subject += " generation " + strconv.Itoa(e.Generation)
	}
	return clean(strings.TrimRight(fmt.Sprintf("%s %-13s %s", subject, e.Kind, strings.Join(eventFacts(e), "")), " "))
}

// eventFacts returns the columns after the kind: a pid or a time, and why.
func eventFacts(e control.Event) []string {
	var first, second string
	switch e.Kind {
	case "checking", "started", "stopping", "killed", "exited", "signal", "mainpid":
		if e.PID != 0 {
			first = "pid " + strconv.Itoa(e.PID)
		}
	case "ready", "settled", "promoted", "failed", "reloaded", "overdue":
		first = compact(e.Seconds)
	}
	if e.Cause != e.Kind {
		second = e.Cause
	}
	switch e.Kind {
	case "checking", "started":
		second = e.Trigger
	case "ready", "status", "reloading", "reloaded":
		if e.Status != "" {
			second = `"` + e.Status + `"`
		}
	case "requested", "refused":
		second = strings.TrimSpace(e.Trigger + " " + second + askedBy(e.Asker))
	}
	if first != "" && second != "" {
		first = fmt.Sprintf("%-5s  ", first)
	}
	return []string{first, second}
}

func askedBy(a *control.Asker) string {
	if a == nil {
		return ""
	}
	return " by " + askerText(a)
}

// askerText reads "crankctl (uid 0, pid 12)".
func askerText(a *control.Asker) string {
	switch {
	case a == nil:
		return "-"
	case a.UID < 0:
		return a.Name
	}
	return fmt.Sprintf("%s (uid %d, pid %d)", a.Name, a.UID, a.PID)
}

// progress prints the events of something that takes time, on stderr. On a terminal a last line
// says for how long the newest generation has been at it.
type progress struct {
	s *session

	mu    sync.Mutex
	doing string // what the last line says; empty: there is none
	since time.Time
	told  bool // the stderr of a failed generation was printed
	newer int  // the generation that was started last
	quit  chan struct{}
	wait  sync.WaitGroup
}

// watch starts the progress of a request; the caller ends it with stop.
func (s *session) watch() *progress {
	p := &progress{s: s, quit: make(chan struct{})}
	if s.live && !s.global.quiet {
		p.wait.Go(p.redraw)
	}
	return p
}

func (p *progress) stop() {
	close(p.quit)
	p.wait.Wait()
}

// activities say what a generation does after an event.
var activities = map[string]string{"started": "starting", "ready": "settling", "stopping": "stopping"}

// shows leaves out what the events say otherwise: that a candidate ends is in its failure.
func (p *progress) shows(e control.Event) bool {
	switch e.Kind {
	case "requested", "exited", "status":
		return false
	case "checking", "started":
		p.newer = e.Generation
	case "stopping":
		return e.Generation != p.newer && !p.s.global.quiet
	}
	return !p.s.global.quiet
}

func (p *progress) event(e control.Event) {
	if !p.shows(e) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name := p.s.client.Name()
	p.clear()
	switch e.Kind { // whoever asked knows why
	case "checking", "started":
		e.Trigger = ""
	case "stopping":
		e.Cause, _, _ = strings.Cut(e.Cause, ":")
	}
	line := eventLine(name, e)
	switch e.Kind {
	case "failed":
		line = p.s.paint(red, line)
	case "ready", "settled", "promoted":
		line = p.s.paint(green, line)
	}
	fmt.Fprintln(p.s.stderr, line)
	if e.Kind == "failed" {
		p.tail(e.Stderr)
	}
	p.doing, p.since = "", time.Now()
	if verb := activities[e.Kind]; verb != "" {
		p.doing = clean(fmt.Sprintf("%s: generation %d %s", name, e.Generation, verb))
	}
}

// tail prints what a failed generation wrote, once.
func (p *progress) tail(lines []string) {
	if len(lines) == 0 || p.told {
		return
	}
	p.told = true
	for _, line := range lines {
		fmt.Fprintf(p.s.stderr, "  | %s\n", clean(line))
	}
}

func (p *progress) clear() {
	if p.doing != "" && p.s.live {
		fmt.Fprint(p.s.stderr, clearLine)
	}
}

func (p *progress) redraw() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			p.mu.Lock()
			p.clear()
			p.mu.Unlock()
			return
		case <-tick.C:
			p.mu.Lock()
			if p.doing != "" {
				fmt.Fprintf(p.s.stderr, "%s%s for %s", clearLine, p.doing, compact(time.Since(p.since).Truncate(time.Second).Seconds()))
			}
			p.mu.Unlock()
		}
	}
}
