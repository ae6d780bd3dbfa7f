package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Peer is the key of the attribute that says who has caused a line, where that may be a stranger: as much of an address or a user
// id as strangers cannot choose freely. Of such lines one for each peer is written in an interval, and their texts are cut to
// maxStrange.
const Peer = "peer"

// The limits of what a line that others cause can make of the log.
const (
	interval   = 10 * time.Second
	burst      = 10   // lines with one message, of one generation and socket, in an interval; of a peer 1
	maxKeys    = 1024 // messages that are told from one another in an interval; further ones are taken for one
	maxPeers   = 64   // the same, of peers
	maxText    = 1024 // bytes of a message or of one attribute
	maxStrange = 128  // the same, where a peer has caused it
)

// limited passes on what is not too much. What it leaves out is counted, and said at the end of the interval with the last such line.
type limited struct {
	slog.Handler
	limiter *limiter
	scope   string // from WithAttrs
	strange bool   // from WithAttrs: there is a peer
}

// limiter is what all handlers of a log share.
type limiter struct {
	mu     sync.Mutex
	counts map[string]*count
	peers  int // among counts
	sweep  time.Time
	timer  *time.Timer // nil: nothing is left out
	closed bool
}

// count is what was written with one key, and left out, since the start of an interval.
type count struct {
	ends    time.Time
	lines   int
	left    int
	last    slog.Record // of those left out
	to      slog.Handler
	strange bool
}

func newLimited(h slog.Handler) *limited {
	return &limited{Handler: h, limiter: &limiter{counts: map[string]*count{}}}
}

// WithAttrs implements slog.Handler.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *l
	next.Handler = l.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		next.note(a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (l *limited) WithGroup(name string) slog.Handler {
	next := *l
	next.Handler = l.Handler.WithGroup(name)
	return &next
}

// note keeps what tells lines with the same message from one another.
func (l *limited) note(a slog.Attr) {
	switch a.Key {
	case "generation", "socket":
		l.scope += " " + a.Value.String()
	case Peer:
		l.scope += " " + cut(a.Value.String(), maxStrange)
		l.strange = true
	}
}

// Handle implements slog.Handler.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	line := *l
	r.Attrs(func(a slog.Attr) bool {
		line.note(a)
		return true
	})
	r = shorten(r, line.strange)
	if !line.limiter.admit(r.Message+line.scope, r, l.Handler, line.strange) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// shorten cuts what is too long, and takes what does not print out of what strangers have chosen.
func shorten(r slog.Record, strange bool) slog.Record {
	short := slog.NewRecord(r.Time, r.Level, cut(r.Message, maxText), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		text, isText := a.Value.String(), a.Value.Kind() == slog.KindString
		if err, ok := a.Value.Any().(error); ok {
			text, isText = err.Error(), true
		}
		switch {
		case !isText:
		case strange:
			a.Value = slog.StringValue(cut(strings.Map(printing, text), maxStrange))
		case len(text) > maxText:
			a.Value = slog.StringValue(cut(text, maxText))
		}
		short.AddAttrs(a)
		return true
	})
	return short
}

func printing(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '?'
}

// cut returns at most limit bytes of text, and how many it had.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	n := limit
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return fmt.Sprintf("%s... (%d bytes)", text[:n], len(text))
}

// admit reports whether a line is to be written now. Else it is counted.
func (l *limiter) admit(key string, r slog.Record, to slog.Handler, strange bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return true
	}
	c := l.count(key, r, strange)
	if c.lines < most(strange) {
		c.lines++
		return true
	}
	c.left++
	c.last, c.to = r, to
	if l.timer == nil {
		l.timer = time.AfterFunc(c.ends.Sub(r.Time), l.tell)
	}
	return false
}

func most(strange bool) int {
	if strange {
		return 1
	}
	return burst
}

// count returns the one of key, and a new one where its interval is over.
func (l *limiter) count(key string, r slog.Record, strange bool) *count {
	if c := l.counts[key]; c != nil && (c.left > 0 || r.Time.Before(c.ends)) {
		return c
	}
	if !r.Time.Before(l.sweep) {
		l.forget(r.Time)
	}
	if strange && l.peers >= maxPeers || len(l.counts) >= maxKeys {
		if key = "others"; strange {
			key = r.Message + " others"
		}
	}
	if c := l.counts[key]; c != nil && (c.left > 0 || r.Time.Before(c.ends)) {
		return c
	}
	if strange && l.counts[key] == nil {
		l.peers++
	}
	l.counts[key] = &count{ends: r.Time.Add(interval), strange: strange}
	return l.counts[key]
}

// forget drops what is over.
func (l *limiter) forget(now time.Time) {
	for key, c := range l.counts {
		if c.left == 0 && !now.Before(c.ends) {
			delete(l.counts, key)
			if c.strange {
				l.peers--
			}
		}
	}
	l.sweep = now.Add(interval)
}

// tell writes what was left out in intervals that are over. The next line with the same key has to wait for the end of another one.
func (l *limiter) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if l.closed {
		return
	}
	now := time.Now()
	var next time.Time
	for _, c := range l.counts {
		switch {
		case c.left == 0:
		case !now.Before(c.ends):
			c.write()
			c.ends, c.lines = now.Add(interval), most(c.strange)
		case next.IsZero() || c.ends.Before(next):
			next = c.ends
		}
	}
	if !next.IsZero() {
		l.timer = time.AfterFunc(next.Sub(now), l.tell)
	}
}

// write writes the last line that was left out, and how many others were.
func (c *count) write() {
	if c.left > 1 {
		c.last.AddAttrs(slog.Int("suppressed", c.left-1))
	}
	_ = c.to.Handle(context.Background(), c.last) // the Writer never fails
	c.left, c.last = 0, slog.Record{}
}

// close writes what was left out so far, and limits nothing any more.
func (l *limiter) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for _, c := range l.counts {
		if c.left > 0 {
			c.write()
		}
	}
	l.counts = nil
}
