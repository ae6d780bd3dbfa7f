package logging

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func lostLine(n int64) []byte { return fmt.Appendf(nil, "lost %d\n", n) }

// gate is a writer that tells when it was entered, and returns when it is let go.
type gate struct {
	sink
	entered chan struct{} // closed at the first Write
	open    chan struct{}
	once    sync.Once
}

func newGate() *gate { return &gate{entered: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.entered) })
	<-g.open
	return g.sink.Write(p)
}

func TestNobodyReads(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		fits int
	}{
		"short lines: the number of lines": {"x\n", maxLines},
		"long lines: their bytes":          {strings.Repeat("x", 4095) + "\n", maxBytes / 4096},
	} {
		t.Run(name, func(t *testing.T) {
			out := newGate()
			w := newWriter(out, lostLine)
			const written = 3000
			for range written {
				if n, err := io.WriteString(w, test.line); n != len(test.line) || err != nil {
					t.Fatalf("Write: %d, %v", n, err)
				}
			}
			<-out.entered
			lost := int64(written - test.fits)
			if w.Dropped() != lost {
				t.Errorf("dropped %d, want %d", w.Dropped(), lost)
			}
			if w.Flush(time.Millisecond) {
				t.Error("flushed into a writer that does not return")
			}
			close(out.open)
			if !w.Flush(long) || !w.Close(long) {
				t.Fatal("not written after all")
			}
			got := out.all()
			if len(got) != test.fits+1 {
				t.Fatalf("%d writes, want %d and what was lost", len(got), test.fits)
			}
			if want := string(lostLine(lost)); got[test.fits] != want {
				t.Errorf("last %q, want %q", got[test.fits], want)
			}
		})
	}
}

// The real thing: a pipe that is full and has no reader at work.
func TestFullPipe(t *testing.T) {
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	w := newWriter(pipe, lostLine)
	line := strings.Repeat("x", 1023) + "\n"
	for range 2000 { // more than pipe and queue hold
		io.WriteString(w, line)
	}
	lost := w.Dropped()
	if lost == 0 {
		t.Fatal("nothing dropped")
	}
	if w.Close(time.Millisecond) {
		t.Error("closed while the pipe is full")
	}
	io.WriteString(w, "after Close\n")
	read := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(r)
		read <- all
	}()
	if !w.Close(long) {
		t.Fatal("not closed though it is read")
	}
	pipe.Close()
	all := <-read
	want := fmt.Sprintf("lost %d\n", lost+1)
	if lines := bytes.Count(all, []byte(line)); int64(lines)+lost != 2000 || !bytes.HasSuffix(all, []byte(want)) {
		t.Errorf("%d lines and %d lost of 2000, the end is %q, want %q", lines, lost, all[max(0, len(all)-40):], want)
	}
}

// failing fails as told, one error for each Write, then works.
type failing struct {
	sink
	errs []error
}

func (f *failing) Write(p []byte) (int, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		if err != nil {
			n, _ := f.sink.Write(p[:1])
			return n, err
		}
	}
	return f.sink.Write(p)
}

func TestFailedWrites(t *testing.T) {
	out := &failing{errs: []error{syscall.EPIPE, syscall.EPIPE}} // the reader is gone for a while
	w := newWriter(out, lostLine)
	for _, line := range []string{"aa\n", "bb\n", "three\n"} {
		io.WriteString(w, line)
		if !w.Flush(long) {
			t.Fatal("not flushed")
		}
	}
	if !w.Close(long) {
		t.Fatal("not closed")
	}
	if got, want := strings.Join(out.all(), ""), "abthree\nlost 2\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReaderGoneForGood(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGPIPE) // as crank does: else EPIPE on descriptor 1 or 2 would kill
	defer signal.Stop(signals)
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r.Close()
	w := newWriter(pipe, lostLine)
	for range 10 {
		io.WriteString(w, "x\n")
	}
	if !w.Flush(long) || !w.Close(long) || w.Dropped() != 10 {
		t.Errorf("not closed, or dropped %d, want 10", w.Dropped())
	}
}

func TestWriteCopies(t *testing.T) {
	out := newGate()
	w := newWriter(out, lostLine)
	line := []byte("one\n")
	w.Write(line)
	copy(line, "two\n")
	close(out.open)
	w.Close(long)
	if got := out.all(); len(got) != 1 || got[0] != "one\n" {
		t.Errorf("got %q", got)
	}
}
