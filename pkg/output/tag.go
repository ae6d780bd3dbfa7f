package output

import (
	"bytes"
	"io"
	"strconv"
	"time"
)

// MaxLine is the length in bytes, without prefix and newline, of the longest line that stays whole: 16
// times what container runtimes and log shippers usually take for one.
const MaxLine = 1 << 20

// tagTime is RFC 3339 in UTC with milliseconds: the same length for every line.
const tagTime = "2006-01-02T15:04:05.000Z"

// batchSize is from where on a batch of lines is written, so that many short lines need not fit at once.
const batchSize = 64 << 10

// The mark between prefix and text.
const (
	newLine   = "| "
	continued = "+ "
)

// tagger writes lines with a prefix:
//
//	2026-11-22T12:00:00.000Z web[4] 57 err | text
//
// that is the time at which crank read the end of the line, the name and generation of the instance, the
// pid of the generation's main process, and the stream. The text is passed on byte for byte. A line is
// passed on when it is complete, or when the stream ends; then it gets the newline that it lacks.
//
// What is guaranteed: a line of up to MaxLine bytes is given to the destination in one Write, so nothing
// comes between its bytes. A longer one is passed on in pieces of MaxLine bytes, each with prefix and
// newline, and "+" in place of "|" on all but the first. Lines of other streams may come between the
// pieces; those of one stream stay in order.
type tagger struct {
	to      io.Writer
	now     func() time.Time
	origin  string // " web[4] 57 err ", after the time
	prefix  []byte // time and origin
	partial []byte // a line without its end yet, at most MaxLine bytes
	mark    string // before the next piece or line
	batch   []byte
}

func newTagger(to io.Writer, name string, generation, pid int, stream string) *tagger {
	return &tagger{
		to:     to,
		now:    time.Now,
		origin: " " + name + "[" + strconv.Itoa(generation) + "] " + strconv.Itoa(pid) + " " + stream + " ",
		mark:   newLine,
	}
}

// Write never fails: what cannot be written is lost, and counted by the destination.
func (t *tagger) Write(chunk []byte) (int, error) {
	t.stamp()
	rest := chunk
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		t.add(rest[:i])
		t.endLine()
		rest = rest[i+1:]
	}
	t.add(rest)
	t.send()
	return len(chunk), nil
}

// deadline implements sink: a line may take any time to end.
func (t *tagger) deadline() time.Time { return time.Time{} }

// overdue implements sink.
func (t *tagger) overdue() {}

// Close writes a last line that has no newline.
func (t *tagger) Close() error {
	if len(t.partial) > 0 {
		t.stamp()
		t.endLine()
		t.send()
	}
	return nil
}

func (t *tagger) stamp() {
	t.prefix = t.now().UTC().AppendFormat(t.prefix[:0], tagTime)
	t.prefix = append(t.prefix, t.origin...)
}

// add appends to the line under way. Only what goes beyond MaxLine is passed on before the line's end.
func (t *tagger) add(text []byte) {
	for len(t.partial)+len(text) > MaxLine {
		room := MaxLine - len(t.partial)
		t.put(t.partial, text[:room])
		t.partial, text, t.mark = t.partial[:0], text[room:], continued
	}
	t.partial = append(t.partial, text...)
}

func (t *tagger) endLine() {
	t.put(t.partial, nil)
	t.partial, t.mark = reuse(t.partial), newLine
}

// reuse empties a buffer, and gives the memory of an unusually long line back.
func reuse(buffer []byte) []byte {
	if cap(buffer) > 2*batchSize {
		return nil
	}
	return buffer[:0]
}

func (t *tagger) put(text, more []byte) {
	if len(t.batch)+len(t.prefix)+len(text)+len(more) > batchSize {
		t.send()
	}
	t.batch = append(t.batch, t.prefix...)
	t.batch = append(t.batch, t.mark...)
	t.batch = append(t.batch, text...)
	t.batch = append(t.batch, more...)
	t.batch = append(t.batch, '\n')
}

func (t *tagger) send() {
	if len(t.batch) > 0 {
		_, _ = t.to.Write(t.batch) // what cannot be written is dropped and counted
		t.batch = reuse(t.batch)
	}
}
