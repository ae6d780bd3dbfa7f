package output

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// TailSize is how many bytes a Tail keeps.
const TailSize = 4 << 10

// Tail keeps the last TailSize bytes that were written to it. The zero value is ready, and it may be
// used by several goroutines at once.
type Tail struct {
	mu   sync.Mutex
	kept []byte // at most 2*TailSize, so that most writes move nothing
	cut  bool   // kept begins in the middle of a line
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > TailSize {
		t.dropAll(p[:len(p)-TailSize])
		p = p[len(p)-TailSize:]
	}
	if len(t.kept)+len(p) > 2*TailSize {
		t.shorten()
	}
	t.kept = append(t.kept, p...)
	return n, nil
}

// dropAll forgets what is kept, and then dropped.
func (t *Tail) dropAll(dropped []byte) {
	t.kept = t.kept[:0]
	t.cut = dropped[len(dropped)-1] != '\n'
}

func (t *Tail) shorten() {
	if extra := len(t.kept) - TailSize; extra > 0 {
		t.cut = t.kept[extra-1] != '\n'
		t.kept = t.kept[:copy(t.kept, t.kept[extra:])]
	}
}

// Lines returns the last lines, the newest last. A first line that was cut is left out, unless there is
// no other. All are valid UTF-8, and control characters other than the tab are written as Go escapes.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	t.shorten()
	text, cut := bytes.Clone(t.kept), t.cut
	t.mu.Unlock()

	text = bytes.TrimSuffix(text, []byte("\n"))
	if len(text) == 0 {
		return nil
	}
	if first, others, ok := bytes.Cut(text, []byte("\n")); cut && ok {
		text = others
	} else if cut {
		text = dropPartialRune(first)
	}
	var lines []string
	for line := range strings.SplitSeq(string(text), "\n") {
		lines = append(lines, visible(strings.TrimSuffix(line, "\r")))
	}
	return lines
}

// dropPartialRune drops the rest of a character that was cut.
func dropPartialRune(line []byte) []byte {
	for i := 0; i < utf8.UTFMax && i < len(line); i++ {
		if utf8.RuneStart(line[i]) {
			return line[i:]
		}
	}
	return line
}

func visible(line string) string {
	var b strings.Builder
	for _, r := range line {
		if strconv.IsGraphic(r) || r == '\t' {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
