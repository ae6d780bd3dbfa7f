package output

import (
	"bytes"
	"time"
)

// holdFor is how long the start of a line waits for the rest: long enough for an app that is still writing it, and short for somebody who
// watches a prompt or a progress display.
const holdFor = 500 * time.Millisecond

// lines passes its input on byte for byte, in whole lines: a line of up to MaxLine bytes that is complete within holdFor is given to the
// destination in one piece, so nothing comes between its bytes. The start of a line that is not complete in time, or is longer,
// is passed on as it is.
type lines struct {
	to      *Writer
	partial []byte    // a line without its end so far
	until   time.Time // how long partial may be held; zero: not yet determined
}

// Write never fails: what cannot be written is lost, and counted by the destination.
func (l *lines) Write(chunk []byte) (int, error) {
	end := bytes.LastIndexByte(chunk, '\n') + 1
	if end > 0 {
		l.send(chunk[:end])
	}
	l.partial = append(l.partial, chunk[end:]...)
	if len(l.partial) > MaxLine {
		l.send(nil)
	}
	return len(chunk), nil
}

func (l *lines) send(rest []byte) {
	_, _ = l.to.writeAll(l.partial, rest)
	l.partial, l.until = reuse(l.partial), time.Time{}
}

// deadline implements sink.
func (l *lines) deadline() time.Time {
	if len(l.partial) > 0 && l.until.IsZero() {
		l.until = time.Now().Add(holdFor)
	}
	return l.until
}

// overdue implements sink.
func (l *lines) overdue() {
	if !l.until.IsZero() && !time.Now().Before(l.until) { // otherwise the deadline was that of an earlier line
		l.send(nil)
	}
}

// Close passes on a last line that has no newline.
func (l *lines) Close() error {
	if len(l.partial) > 0 { // to write nothing would end the unfinished line of another generation
		l.send(nil)
	}
	return nil
}
