// Package logging is crank's own log: logr in front, text or JSON lines behind, and a writer that
// never stops its caller.
package logging

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-logr/logr"
)

// New returns a logger of crank's own log and the Writer that carries it to w, which the caller
// closes last.
//
// format is "text", "json", or "auto": text on a terminal, else JSON. Lines of V(level) and below
// are written. name is the instance's, on every line except those for a terminal, which look like
//
//	crank: generation ready generation=4 pid=57
//
// Texts are cut to a kilobyte. Lines with the same message are limited to ten in ten seconds (per generation, if they have that
// attribute), or to one if they have the attribute Peer. The last suppressed line is written at the end of that time, or by Close,
// and says how many others were suppressed.
func New(w io.Writer, format string, level int, isTerminal bool, name string) (logr.Logger, *Writer) {
	lost := func(n int64) []byte {
		var line bytes.Buffer
		logr.FromSlogHandler(handler(&line, format, level, isTerminal, name)).Info("log lines dropped", "count", n)
		return line.Bytes()
	}
	writer := newWriter(w, lost)
	limited := newLimited(handler(writer, format, level, isTerminal, name))
	writer.ends = limited.limiter.close
	return logr.FromSlogHandler(limited), writer
}

// Warn writes a line of level WARN, for which logr has no method: something is wrong, and crank continues.
func Warn(log logr.Logger, message string, keysAndValues ...any) {
	slog.New(logr.ToSlogHandler(log)).Warn(message, keysAndValues...)
}

func handler(w io.Writer, format string, level int, isTerminal bool, name string) slog.Handler {
	// logr's V(n) is slog's level -n: go-logr/logr slogsink.go.
	options := &slog.HandlerOptions{Level: slog.Level(-level), ReplaceAttr: replace}
	attrs := []slog.Attr{slog.String("name", name)}
	switch {
	case format == "json" || format == "auto" && !isTerminal:
		return slog.NewJSONHandler(w, options).WithAttrs(attrs)
	case isTerminal:
		return newTerminal(w, options)
	default:
		return slog.NewTextHandler(w, options).WithAttrs(attrs)
	}
}

// replace makes times RFC 3339 in UTC with milliseconds, and levels INFO, DEBUG, WARN or ERROR.
func replace(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch {
	case a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime:
		a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
	case a.Key == slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok && level < slog.LevelInfo {
			a.Value = slog.StringValue(slog.LevelDebug.String())
		}
	case a.Value.Kind() == slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String()) // not a number of nanoseconds
	}
	return a
}

// terminal writes lines for people: it leaves the attributes to slog's text handler, which writes
// them to line, and puts its own beginning before them.
type terminal struct {
	slog.Handler
	shared *terminalLine
}

type terminalLine struct {
	mu   sync.Mutex
	line bytes.Buffer
	w    io.Writer
}

func newTerminal(w io.Writer, options *slog.HandlerOptions) slog.Handler {
	shared := &terminalLine{w: w}
	attributesOnly := *options
	attributesOnly.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return replace(groups, a)
	}
	return terminal{slog.NewTextHandler(&shared.line, &attributesOnly), shared}
}

func (t terminal) Handle(ctx context.Context, r slog.Record) error {
	begin := "crank: "
	switch {
	case r.Level >= slog.LevelError:
		begin += "error: "
	case r.Level >= slog.LevelWarn:
		begin += "warning: "
	}
	begin += printable(r.Message)
	r.Time, r.Message = time.Time{}, "" // the text handler writes no zero time, but an empty message

	s := t.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line.Reset()
	if err := t.Handler.Handle(ctx, r); err != nil {
		return err
	}
	attributes := strings.TrimPrefix(s.line.String(), `msg=""`)
	_, err := io.WriteString(s.w, begin+attributes)
	return err
}

func (t terminal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return terminal{t.Handler.WithAttrs(attrs), t.shared}
}

func (t terminal) WithGroup(name string) slog.Handler {
	return terminal{t.Handler.WithGroup(name), t.shared}
}

// printable keeps what an environment variable or an app says from driving the terminal.
func printable(message string) string {
	if strings.ContainsFunc(message, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(message)
	}
	return message
}
