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

// Peer is the key of the attribute that identifies who caused a line, if that may be a stranger: the part of an address or a user
// id that strangers cannot choose freely. Such lines are limited to one per peer in an interval, and their texts are cut to
// maxStrange.
const Peer = "peer"

// Limits on how much others can make crank log.
const (
	interval   = 10 * time.Second
	burst      = 10   // lines with the same message, generation and socket in an interval; 1 with a peer
	maxKeys    = 1024 // messages told apart in an interval; all others count as one
	maxPeers   = 64   // the same for peers
	maxText    = 1024 // bytes of a message or an attribute
	maxStrange = 128  // the same in lines with a peer
)

// limited passes on lines within the limits. It counts those it suppresses, and writes the last one with the count at the end of the
// interval.
type limited struct {
	slog.Handler
	limiter *limiter
	scope   string // from WithAttrs
	strange bool   // from WithAttrs: there is a peer
}

// limiter is shared by all handlers of a log.
type limiter struct {
	mu     sync.Mutex
	counts map[string]*count
	peers  int // among counts
	sweep  time.Time
	timer  *time.Timer // runs tell at due; nil: nothing is suppressed
	due    time.Time
	closed bool
}

// count is what was written and suppressed with one key since the start of an interval.
type count struct {
	ends    time.Time
	lines   int
	left    int
	last    slog.Record // of those suppressed
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

// note records what distinguishes lines with the same message.
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

// shorten cuts long texts, and replaces unprintable characters in texts that strangers chose.
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

// cut limits text to limit bytes; a shortened one ends with its original length.
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

// admit reports whether to write a line now. Otherwise it counts the line.
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
	l.schedule(c.ends, r.Time)
	return false
}

// schedule calls tell at a time, unless it is called earlier.
func (l *limiter) schedule(at, now time.Time) {
	switch {
	case l.timer == nil:
		l.timer = time.AfterFunc(at.Sub(now), l.tell)
	case at.Before(l.due):
		l.timer.Reset(at.Sub(now))
	default:
		return
	}
	l.due = at
}

func most(strange bool) int {
	if strange {
		return 1
	}
	return burst
}

// count returns the count of key, a new one if its interval is over.
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

// forget drops counts whose interval is over.
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

// tell writes what was suppressed in intervals that are over. The next line with the same key waits for the end of another interval.
func (l *limiter) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if l.closed {
		return
	}
	now := time.Now()
	for _, c := range l.counts {
		switch {
		case c.left == 0:
		case now.Before(c.ends):
			l.schedule(c.ends, now)
		default:
			c.write()
			c.ends, c.lines = now.Add(interval), most(c.strange)
		}
	}
}

// write writes the last suppressed line, and how many others there were.
func (c *count) write() {
	if c.left > 1 {
		c.last.AddAttrs(slog.Int("suppressed", c.left-1))
	}
	_ = c.to.Handle(context.Background(), c.last) // the Writer never fails
	c.left, c.last = 0, slog.Record{}
}

// close writes what was suppressed so far, and lifts all limits.
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
