package output

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestWholeLines: lines of several generations, longer than a pipe, and of crank's log, to one pipe.
func TestWholeLines(t *testing.T) {
	const generations, each = 3, 100
	lengths := []int{20, 70_000, 300, 200_000, 0, 9_999}
	to := newReader(t)
	_, stderr := Destinations(to.fd(), to.fd())
	var apps sync.WaitGroup
	var all []*Streams
	for g := range generations {
		s := startWith(t, Auto, Options{Generation: g, Stderr: stderr, KeepStderr: true})
		app, letter := dup(t, s.AppStderr()), string(rune('a'+g))
		apps.Go(func() {
			defer app.Close()
			for i := range each {
				app.WriteString(strings.Repeat(letter, lengths[i%len(lengths)]) + "\n")
			}
		})
		s.CloseAppEnds()
		s.SetPID(1)
		all = append(all, s)
	}
	stop := make(chan struct{})
	var log sync.WaitGroup
	log.Go(func() {
		for w := stderr.Writer(); ; {
			select {
			case <-stop:
				return
			default:
				w.Write([]byte("{log}\n"))
			}
		}
	})
	go func() {
		apps.Wait()
		for _, s := range all {
			<-s.Done()
		}
		close(stop)
		log.Wait()
		to.write.Close()
	}()
	got := map[string][]int{}
	lines := bufio.NewScanner(to)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := lines.Text()
		switch {
		case text == "{log}", text == "":
		case strings.Trim(text, text[:1]) == "":
			got[text[:1]] = append(got[text[:1]], len(text))
		default:
			t.Fatalf("a line of %d bytes: %.60s", len(text), text)
		}
	}
	for g := range generations {
		letter, want := string(rune('a'+g)), 0
		for _, n := range got[letter] {
			if lengths[want%len(lengths)] == 0 {
				want++
			}
			if n != lengths[want%len(lengths)] {
				t.Fatalf("%s: a line of %d bytes is number %d", letter, n, want)
			}
			want++
		}
		if want != each {
			t.Errorf("%s: %d lines, want %d", letter, want, each)
		}
	}
}

// unfinished is a generation whose app writes parts of lines.
type unfinished struct {
	*Streams
	t        *testing.T
	out      *reader
	app, log io.Writer
}

func newUnfinished(t *testing.T) *unfinished {
	u := &unfinished{t: t, out: newReader(t)}
	u.Streams = start(t, Auto, u.out, u.out)
	app := dup(t, u.AppStderr())
	t.Cleanup(func() { app.Close() })
	u.app, u.log = app, u.options.Stderr.Writer()
	u.CloseAppEnds()
	u.SetPID(1)
	return u
}

// writes has one of both write, and waits until that has arrived.
func (u *unfinished) writes(w io.Writer, text, arrives string) {
	u.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		u.t.Fatal(err)
	}
	got := make([]byte, len(arrives))
	if err := u.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		u.t.Fatal(err)
	}
	if _, err := io.ReadFull(u.out, got); err != nil || string(got) != arrives {
		u.t.Fatalf("got %q, %v, want %q", got, err, arrives)
	}
}

// TestUnfinishedLine: it is passed on after a while; then the log starts a new line, and so does the rest from the app.
func TestUnfinishedLine(t *testing.T) {
	u := newUnfinished(t)
	u.writes(u.app, "one\nwork", "one\nwork")
	u.writes(u.app, "ing", "ing")
	u.writes(u.log, "{log}\n", "\n{log}\n")
	u.writes(u.log, "{log}\n", "{log}\n")
	u.writes(u.app, " still\n", " still\n")
	u.writes(u.log, "{log}\n", "{log}\n")
	other := u.options.Stderr.Writer()
	u.writes(u.app, "two", "two")
	u.writes(other, "three", "\nthree")
	u.writes(u.app, "two\n", "\ntwo\n")
	u.writes(other, "four\n", "four\n")
}

// TestLastLine: nothing is added to a last line without a newline, and what others write after it starts a new line.
func TestLastLine(t *testing.T) {
	out := newReader(t).begin()
	s := start(t, Auto, out, out)
	app := dup(t, s.AppStderr())
	s.CloseAppEnds()
	s.SetPID(1)
	app.WriteString("the end")
	app.Close()
	wait(t, s)
	s.options.Stderr.Writer().Write([]byte("{log}\n"))
	if got := out.end(t); got != "the end\n{log}\n" {
		t.Errorf("got %q", got)
	}
}

// TestEndCutsNoLine: a generation that ends and has nothing to pass on leaves the unfinished line of another one alone.
func TestEndCutsNoLine(t *testing.T) {
	u := newUnfinished(t)
	old := startWith(t, Auto, Options{Generation: 1, Stderr: u.options.Stderr, KeepStderr: true})
	old.CloseAppEnds()
	u.writes(u.app, "work", "work")
	old.SetPID(1)
	wait(t, old)
	u.writes(u.app, "ing\n", "ing\n")
}

// TestClosePassesUnfinishedOn: also while the app is alive.
func TestClosePassesUnfinishedOn(t *testing.T) {
	out := newReader(t).begin()
	s := start(t, Auto, out, out)
	app := dup(t, s.AppStderr())
	defer app.Close()
	s.SetPID(1)
	app.WriteString("no end")
	if !s.Close(patience) {
		t.Error("not closed")
	}
	if got := out.end(t); got != "no end" {
		t.Errorf("got %q", got)
	}
}

// TestEndlessLine: an app that never ends its line delays no other writer, whether it writes much or little.
func TestEndlessLine(t *testing.T) {
	for name, chunk := range map[string]string{"much": strings.Repeat("x", 256<<10), "little": "x"} {
		t.Run(name, func(t *testing.T) {
			u := newUnfinished(t)
			stop, stopped := make(chan struct{}), make(chan int)
			go func() {
				wrote := 0
				for {
					select {
					case <-stop:
						stopped <- wrote
						return
					case <-time.After(time.Millisecond): // avoids a busy loop
						n, _ := io.WriteString(u.app, chunk)
						wrote += n
					}
				}
			}()
			if _, err := io.ReadFull(u.out, make([]byte, 1)); err != nil { // the start of the line
				t.Fatal(err)
			}
			u.out.begin()
			u.log.Write([]byte("{log}\n"))
			close(stop)
			wrote := <-stopped
			u.Close(patience)
			got := "x" + u.out.end(t)
			app := strings.Count(got, "x")
			if app != wrote || strings.Count(got, "\n{log}\n") != 1 || len(got) != wrote+len("\n{log}\n") {
				t.Errorf("%d bytes of %d, and %d others", app, wrote, len(got)-app)
			}
		})
	}
}

// TestLongestLine: a line of MaxLine bytes stays whole; a longer one does not use more memory.
func TestLongestLine(t *testing.T) {
	out := newReader(t)
	_, stderr := Destinations(out.fd(), out.fd())
	var passed [][]byte
	l := &lines{to: stderr.Writer()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, _ := io.ReadAll(out)
		passed = bytes.SplitAfter(text, []byte("\n"))
	}()
	for range MaxLine / 16 {
		l.Write(bytes.Repeat([]byte("x"), 16))
	}
	stderr.Writer().Write([]byte("{log}\n"))
	l.Write([]byte("\n"))
	for range 3*MaxLine/chunkSize + 1 {
		l.Write(make([]byte, chunkSize))
		if cap(l.partial) > 2*(MaxLine+chunkSize) {
			t.Fatalf("holds %d bytes", cap(l.partial))
		}
	}
	l.Write([]byte("\n"))
	if cap(l.partial) > 2*batchSize {
		t.Errorf("holds %d bytes after the line's end", cap(l.partial))
	}
	out.write.Close()
	<-done
	var lengths []int
	for _, line := range passed {
		lengths = append(lengths, len(line))
	}
	if want := []int{6, MaxLine + 1, 3*MaxLine + chunkSize + 1, 0}; !slices.Equal(lengths, want) {
		t.Errorf("lines of %d bytes, want %d", lengths, want)
	}
}

// TestLostRest: a line of which a part was lost is not continued.
func TestLostRest(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out := newReader(t).begin()
	d := &Destination{fd: int(w.Fd()), line: new(line)}
	app := d.Writer()
	failed := make(chan error)
	go func() {
		_, err := app.Write(bytes.Repeat([]byte("x"), 1<<20))
		failed <- err
	}()
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := <-failed; !errors.Is(err, syscall.EPIPE) || d.Lost() == 0 || d.Lost() == 1<<20 {
		t.Fatalf("lost %d, %v", d.Lost(), err)
	}
	d.fd = out.fd()
	app.Write([]byte("rest\n"))
	d.Writer().Write([]byte("{log}\n"))
	if got := out.end(t); got != "\nrest\n{log}\n" {
		t.Errorf("got %q", got)
	}
}
