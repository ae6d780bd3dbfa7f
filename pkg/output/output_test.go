package output

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/leak"
	"github.com/crankctl/crank/test/root"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

const helperVariable = "OUTPUT_TEST_HELPER"

// helpers are the programs that this test binary plays.
var helpers = map[string]func() error{
	"talk": func() error {
		for i := range 1000 {
			fmt.Printf("stdout %d\n", i)
			fmt.Fprintf(os.Stderr, "stderr %d\n", i)
		}
		_, err := fmt.Fprint(os.Stderr, "the end")
		return err
	},
	// Leaves a process behind that has stderr open until stdin ends.
	"leave one": func() error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperVariable+"=hold")
		cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%slast words\n", strings.Repeat(strings.Repeat("x", 99)+"\n", 400))
		return nil
	},
	"hold": func() error {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	},
	"reopen as nobody": func() error {
		const nobody = 65534
		if err := errors.Join(syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
		file, err := os.OpenFile("/dev/stderr", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = file.WriteString("reopened\n")
		return err
	},
	// Is crank, with a stderr that nobody reads any more.
	"copy to broken stderr": func() error {
		const size = 1 << 20
		stdout, stderr := Destinations(1, 2)
		s, err := Start(Auto, Options{Stdout: stdout, Stderr: stderr, KeepStderr: true})
		if err != nil {
			return err
		}
		s.SetPID(1)
		app := os.NewFile(uintptr(s.AppStderr()), "app")
		for range size / 16 {
			if _, err := app.WriteString("fifteen letters\n"); err != nil {
				return err
			}
		}
		s.CloseAppEnds()
		<-s.Done()
		lines, _ := s.Tail()
		_, err = fmt.Printf("lost %d of %d, last %s", stderr.Lost(), size, lines[len(lines)-1])
		return err
	},
}

func TestMain(m *testing.M) {
	if helper := helpers[os.Getenv(helperVariable)]; helper != nil {
		if err := helper(); err != nil {
			fmt.Fprintln(os.Stdout, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leak.Main(m))
}

// reader is a pipe that stands for crank's stdout or stderr.
type reader struct {
	*os.File
	write *os.File
	text  chan []byte
}

func newReader(t testing.TB) *reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &reader{File: r, write: w}
}

// begin starts to read.
func (r *reader) begin() *reader {
	r.text = make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(r)
		r.text <- text
	}()
	return r
}

// end returns all that was written, once nobody writes any more.
func (r *reader) end(t *testing.T) string {
	t.Helper()
	r.write.Close()
	select {
	case text := <-r.text:
		return string(text)
	case <-time.After(patience):
		t.Fatal("the output does not end")
		panic("not reached")
	}
}

// fd is blocking: (*os.File).Fd sees to it.
func (r *reader) fd() int { return int(r.write.Fd()) }

func start(t *testing.T, mode Mode, stdout, stderr *reader) *Streams {
	t.Helper()
	o := Options{Name: "web", Generation: 4, KeepStderr: true}
	o.Stdout, o.Stderr = Destinations(stdout.fd(), stderr.fd())
	return startWith(t, mode, o)
}

func startWith(t *testing.T, mode Mode, o Options) *Streams {
	t.Helper()
	s, err := Start(mode, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(0) })
	return s
}

// dup returns what a child gets.
func dup(t *testing.T, fd int) *os.File {
	t.Helper()
	if fd < 0 {
		return nil
	}
	n, err := syscall.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(n)
	return os.NewFile(uintptr(n), "app")
}

// command starts a helper as the app whose output s is.
func command(t *testing.T, s *Streams, name string) (cmd *exec.Cmd, stdin io.Closer) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+name)
	if file := dup(t, s.AppStdout()); file != nil {
		defer file.Close()
		cmd.Stdout = file
	}
	if file := dup(t, s.AppStderr()); file != nil {
		defer file.Close()
		cmd.Stderr = file
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.CloseAppEnds()
	s.SetPID(cmd.Process.Pid)
	return cmd, w
}

func wait(t *testing.T, s *Streams) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the copying does not end")
	}
}

func TestInherited(t *testing.T) {
	for _, test := range []struct {
		mode Mode
		keep bool
	}{{Inherit, true}, {Inherit, false}, {Auto, false}} {
		s := startWith(t, test.mode, Options{KeepStderr: test.keep})
		if s.AppStdout() != -1 || s.AppStderr() != -1 {
			t.Errorf("%+v: descriptors %d, %d", test, s.AppStdout(), s.AppStderr())
		}
		s.CloseAppEnds()
		s.SetPID(1)
		wait(t, s)
		if lines, note := s.Tail(); lines != nil || note != "stderr not kept" {
			t.Errorf("%+v: tail %q, %q", test, lines, note)
		}
		if !s.Flush(0) || !s.Close(patience) {
			t.Errorf("%+v: not closed", test)
		}
	}
	if _, err := Start("both", Options{}); err == nil || !strings.Contains(err.Error(), `"both": -output is`) {
		t.Errorf("error %v", err)
	}
}

func TestAutoIsByteForByte(t *testing.T) {
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&want, "stderr %d\n", i)
	}
	want.WriteString("the end")
	stderr := newReader(t).begin()
	s := start(t, Auto, newReader(t), stderr)
	if s.AppStdout() != -1 {
		t.Error("stdout is not inherited")
	}
	cmd, _ := command(t, s, "talk")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	wait(t, s)
	lines, note := s.Tail()
	if note != "" || len(lines) < 300 || lines[len(lines)-1] != "the end" || lines[len(lines)-2] != "stderr 999" {
		t.Errorf("tail %q, %q", lines, note)
	}
	if got := stderr.end(t); got != want.String() {
		t.Errorf("got %d bytes, want %d", len(got), want.Len())
	}
}

func TestTagged(t *testing.T) {
	stdout, stderr := newReader(t).begin(), newReader(t).begin()
	s := start(t, Tag, stdout, stderr)
	cmd, _ := command(t, s, "talk")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	wait(t, s)
	if lines, _ := s.Tail(); len(lines) < 300 || lines[len(lines)-1] != "the end" {
		t.Errorf("tail %q", lines)
	}
	for _, test := range []struct {
		from  *reader
		short string
		long  string
		last  []string
	}{{stdout, "out", "stdout", nil}, {stderr, "err", "stderr", []string{"the end"}}} {
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprintf("%s %d", test.long, i))
		}
		want = append(want, test.last...)
		form := regexp.MustCompile(fmt.Sprintf(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z web\[4\] %d %s \| (.*)$`, cmd.Process.Pid, test.short))
		var got []string
		for line := range strings.Lines(test.from.end(t)) {
			parts := form.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
			if parts == nil {
				t.Fatalf("line %q", line)
			}
			got = append(got, parts[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d lines, want %d", test.long, len(got), len(want))
		}
	}
}

func TestReopenedByNobody(t *testing.T) {
	root.Need(t)
	stdout, stderr := newReader(t).begin(), newReader(t).begin()
	s := start(t, Tag, stdout, stderr)
	cmd, _ := command(t, s, "reopen as nobody")
	err := cmd.Wait()
	wait(t, s)
	if lines, _ := s.Tail(); err != nil || !slices.Equal(lines, []string{"reopened"}) {
		t.Errorf("tail %q, error %v, output %q", lines, err, stdout.end(t))
	}
}

// The end of the process is not the end of the pipe: its last words are there all the same, and crank
// can leave while another process has it open.
func TestPipeHeldByGrandchild(t *testing.T) {
	for _, mode := range []Mode{Auto, Tag} {
		stderr := newReader(t).begin()
		s := start(t, mode, stderr, stderr)
		cmd, stdin := command(t, s, "leave one")
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if !s.Flush(patience) {
			t.Errorf("%s: not flushed", mode)
		}
		if lines, _ := s.Tail(); len(lines) == 0 || lines[len(lines)-1] != "last words" {
			t.Errorf("%s: tail %q", mode, lines)
		}
		select {
		case <-s.Done():
			t.Errorf("%s: nobody holds the pipe", mode)
		default:
		}
		if !s.Close(patience) {
			t.Errorf("%s: not closed", mode)
		}
		wait(t, s)
		if text := stderr.end(t); !strings.HasSuffix(text, "last words\n") || strings.Count(text, "\n") != 401 {
			t.Errorf("%s: %d bytes were passed on", mode, len(text))
		}
		stdin.Close()
	}
}

func TestFlushIsBounded(t *testing.T) {
	stderr := newReader(t)
	s := start(t, Auto, stderr, stderr)
	app := dup(t, s.AppStderr())
	s.CloseAppEnds()
	if !s.Flush(0) {
		t.Error("an empty pipe is not flushed")
	}
	app.WriteString("a\n")
	if s.Flush(time.Millisecond) { // nobody copies yet
		t.Error("flushed without copying")
	}
	s.SetPID(1)
	if !s.Flush(patience) {
		t.Error("not flushed")
	}
	if lines, _ := s.Tail(); !slices.Equal(lines, []string{"a"}) {
		t.Errorf("tail %q", lines)
	}
	app.Close()
	wait(t, s) // otherwise the copy may reach a descriptor of the next test
}

// Nobody reads crank's stderr. The app waits as it would without crank, and loses nothing. Nor does it
// where whoever shares crank's stderr has made it non-blocking.
func TestSlowReader(t *testing.T) {
	const size = 1 << 20
	for _, nonblocking := range []bool{false, true} {
		stderr := newReader(t)
		s := start(t, Auto, stderr, stderr)
		if err := syscall.SetNonblock(s.options.Stderr.fd, nonblocking); err != nil {
			t.Fatal(err)
		}
		app := dup(t, s.AppStderr())
		s.CloseAppEnds()
		s.SetPID(1)
		text := bytes.Repeat([]byte("fifteen letters\n"), size/16)
		wrote := make(chan error, 1)
		go func() {
			_, err := app.Write(text)
			app.Close()
			wrote <- err
		}()
		// Crank's pipe and the app's hold far less: somebody waits. The first byte shows that
		// the copying has begun.
		first := make([]byte, 1)
		if _, err := io.ReadFull(stderr, first); err != nil {
			t.Fatal(err)
		}
		select {
		case <-wrote:
			t.Error("the app did not wait")
		default:
		}
		stderr.begin()
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		wait(t, s)
		if got := string(first) + stderr.end(t); got != string(text) {
			t.Errorf("nonblocking %v: got %d bytes, want %d", nonblocking, len(got), len(text))
		}
		if lost := s.options.Stderr.Lost(); lost > 0 {
			t.Errorf("nonblocking %v: lost %d bytes", nonblocking, lost)
		}
	}
}

func TestCloseDoesNotWaitForReader(t *testing.T) {
	stderr := newReader(t)
	s := start(t, Tag, stderr, stderr)
	app := dup(t, s.AppStderr())
	s.CloseAppEnds()
	s.SetPID(1)
	wrote := make(chan error, 1)
	go func() {
		_, err := app.Write(make([]byte, 4*MaxLine))
		app.Close()
		wrote <- err
	}()
	if _, err := io.ReadFull(stderr, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if s.Close(time.Millisecond) {
		t.Error("closed while nobody reads")
	}
	if err := <-wrote; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the app's write: %v", err)
	}
	stderr.begin() // lets the goroutine go
	wait(t, s)
}

func TestCloseDoesNotWaitForWriter(t *testing.T) {
	stderr := newReader(t).begin()
	s := start(t, Tag, stderr, stderr)
	app := dup(t, s.AppStderr())
	s.CloseAppEnds()
	s.SetPID(1)
	wrote := make(chan error, 1)
	go func() {
		for {
			if _, err := app.WriteString("again\n"); err != nil {
				app.Close()
				wrote <- err
				return
			}
		}
	}()
	s.Close(10 * time.Millisecond)
	if err := <-wrote; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the app's write: %v", err)
	}
	wait(t, s)
}

// Go ends a process that writes to a broken stderr, unless it does so by a plain system call.
func TestBrokenStderr(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"=copy to broken stderr")
	cmd.Stderr = w
	out, err := cmd.Output()
	if want := "lost 1048576 of 1048576, last fifteen letters"; err != nil || string(out) != want {
		t.Errorf("got %q, error %v, want %q", out, err, want)
	}
}

func TestDestinationErrors(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for fd, want := range map[int]error{int(full.Fd()): syscall.ENOSPC, 1 << 20: syscall.EBADF} {
		d, _ := Destinations(fd, fd)
		if n, err := d.Writer().Write([]byte("text")); n != 0 || !errors.Is(err, want) || d.Lost() != 4 {
			t.Errorf("wrote %d, lost %d, error %v, want %v", n, d.Lost(), err, want)
		}
	}
}

func TestDestinationsOfOneFile(t *testing.T) {
	a, b := newReader(t), newReader(t)
	if out, err := Destinations(a.fd(), a.fd()); out.line != err.line {
		t.Error("one file: writes may mix")
	}
	if out, err := Destinations(a.fd(), b.fd()); out.line == err.line {
		t.Error("two files: one waits for the other")
	}
}

// Lines longer than a pipe writes at once, from several generations, to one pipe.
func TestGenerationsDoNotMix(t *testing.T) {
	const generations, each, length = 4, 50, 20_000
	to := newReader(t)
	out, stderr := Destinations(to.fd(), to.fd())
	var apps sync.WaitGroup
	var all []*Streams
	for g := range generations {
		s := startWith(t, Tag, Options{Name: "web", Generation: g, Stdout: out, Stderr: stderr})
		for i, fd := range []int{s.AppStdout(), s.AppStderr()} {
			app, letter := dup(t, fd), string(rune('a'+2*g+i))
			apps.Go(func() {
				defer app.Close()
				for range each {
					app.WriteString(strings.Repeat(letter, length) + "\n")
				}
			})
		}
		s.CloseAppEnds()
		s.SetPID(g)
		all = append(all, s)
	}
	go func() {
		apps.Wait()
		for _, s := range all {
			<-s.Done()
		}
		to.write.Close()
	}()
	got := map[string]int{}
	lines := bufio.NewScanner(to)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, text, _ := strings.Cut(lines.Text(), " | ")
		if len(text) != length || strings.Trim(text, text[:1]) != "" {
			t.Fatalf("a line of %d bytes: %.60s", len(text), lines.Text())
		}
		got[text[:1]]++
	}
	for letter, n := range got {
		if n != each {
			t.Errorf("%s: %d lines, want %d", letter, n, each)
		}
	}
	if len(got) != 2*generations {
		t.Errorf("%d streams, want %d", len(got), 2*generations)
	}
}

func TestNothingIsLeft(t *testing.T) {
	stderr := newReader(t).begin()
	once := func(mode Mode, use func(s *Streams)) {
		s := start(t, mode, stderr, stderr)
		use(s)
		wait(t, s)
	}
	uses := []func(s *Streams){
		func(s *Streams) { s.Close(0) },
		func(s *Streams) { s.SetPID(1); s.CloseAppEnds() },
		func(s *Streams) { s.CloseAppEnds(); s.SetPID(1); s.Close(patience); s.Close(patience); s.SetPID(2) },
		func(s *Streams) { s.SetPID(1); s.Close(patience) },
	}
	once(Tag, uses[1]) // warms up the poller
	files, routines := descriptors(t), runtime.NumGoroutine()
	for _, mode := range []Mode{Auto, Inherit, Tag} {
		for range 5 {
			for _, use := range uses {
				once(mode, use)
			}
		}
	}
	if now := descriptors(t); now != files {
		t.Errorf("%d descriptors, before %d", now, files)
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > routines; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func BenchmarkCopy(b *testing.B) {
	for name, lines := range map[string][]byte{
		"lines":  bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 40),
		"bursts": bytes.Repeat([]byte(strings.Repeat("x", 332)+"\n"), 600), // more than a pipe holds
	} {
		for _, mode := range []Mode{Auto, Tag} {
			b.Run(string(mode)+"/"+name, func(b *testing.B) { benchmarkCopy(b, mode, lines) })
		}
	}
}

func benchmarkCopy(b *testing.B, mode Mode, lines []byte) {
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	out, stderr := Destinations(int(null.Fd()), int(null.Fd()))
	s, err := Start(mode, Options{Name: "web", Generation: 4, Stdout: out, Stderr: stderr, KeepStderr: true})
	if err != nil {
		b.Fatal(err)
	}
	s.SetPID(57)
	b.SetBytes(int64(len(lines)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := lines; len(rest) > 0; {
			n, err := syscall.Write(s.AppStderr(), rest)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	s.Close(patience)
}
