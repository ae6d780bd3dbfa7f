package proc

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// TestEnvironOfNew: the exec is over when the program has its memory, a moment before the kernel shows its environment. Environ tells
// that moment from an environment without the variable.
func TestEnvironOfNew(t *testing.T) {
	for range 300 {
		p := startShellWith(t, "kill -STOP $$", func(s *Spec) { s.Env = []string{"MARK=yes"} })
		values, err := Environ(p.PID(), "MARK")
		for deadline := time.Now().Add(time.Minute); errors.Is(err, ErrNoEnviron) && time.Now().Before(deadline); {
			values, err = Environ(p.PID(), "MARK")
		}
		if err != nil || values["MARK"] != "yes" {
			t.Errorf("MARK is %q, %v", values, err)
		}
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.wait(t)
	}
}

// TestEnvironEmpty: an empty environment needs no second look, since the kernel shows where it ends.
func TestEnvironEmpty(t *testing.T) {
	p := startShellWith(t, "echo; kill -STOP $$", func(s *Spec) { s.Env = nil })
	if _, err := p.out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if values, err := Environ(p.PID(), "MARK"); err != nil || len(values) > 0 {
		t.Errorf("got %q, %v", values, err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.wait(t)
}

// TestFindVariables: variables are found wherever the pieces end; of two the first counts, and one that is too long is skipped.
func TestFindVariables(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	key := strings.Repeat("K", maxKey)
	environ := strings.Join([]string{"=C:", "", "A", "AA=0", "xA=0", "A=1", "A=2", "L=" + long, "L=short", "B=", long + "=A=3", "C=a=b", key + "=" + long[1:], "D=last"}, "\x00")
	want := map[string]string{"A": "1", "B": "", "C": "a=b", "D": "last", "L": "short", key: long[1:]}
	keys := []string{"A", "B", "C", "D", "L", "M", key}
	for _, end := range []string{"", "\x00"} {
		for size := 1; size < 200; size++ {
			got, n, err := findVariables(strings.NewReader(environ+end), make([]byte, overlap+size), keys)
			if err != nil || n != len(environ+end) || !maps.Equal(got, want) {
				t.Fatalf("in pieces of %d: %q, %d bytes, %v; want %q", size, got, n, err, want)
			}
		}
	}
	got, n, _ := findVariables(iotest.OneByteReader(strings.NewReader(environ)), make([]byte, overlap+8), []string{"A"})
	if i := strings.Index(environ, "A=2"); got["A"] != "1" || n != i {
		t.Errorf("got %q after %d bytes, want it after %d", got, n, i)
	}
	if _, _, err := findVariables(iotest.ErrReader(syscall.EIO), make([]byte, overlap+8), keys); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}

// endless is an environment without an end, and counts the bytes read from it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

// TestEnvironIsBounded: of an endless environment no more is read than the kernel would accept, and memory does not grow with it.
func TestEnvironIsBounded(t *testing.T) {
	const chunk = 64 << 10
	r, buffer := &endless{}, make([]byte, chunk)
	allocated := testing.AllocsPerRun(1, func() {
		*r = endless{}
		_, _, _ = findVariables(io.LimitReader(r, maxEnviron), buffer, []string{"A"})
	})
	if r.read != maxEnviron || allocated > 10 {
		t.Errorf("read %d bytes, want %d; %v allocations", r.read, maxEnviron, allocated)
	}
}

// FuzzEnviron: the result does not depend on the pieces in which an environment is read.
func FuzzEnviron(f *testing.F) {
	f.Add([]byte("A=1\x00B=2\x00"), uint8(3))
	f.Add([]byte("\x00\x00A\x00=\x00A=\x00A=2"), uint8(1))
	f.Add(bytes.Repeat([]byte("A=A"), maxValue), uint8(64))
	f.Fuzz(func(t *testing.T, environ []byte, size uint8) {
		want := map[string]string{}
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			key, value, ok := strings.Cut(string(entry), "=")
			if _, twice := want[key]; ok && !twice && len(value) <= maxValue && slices.Contains([]string{"A", "B"}, key) {
				want[key] = value
			}
		}
		got, _, err := findVariables(bytes.NewReader(environ), make([]byte, overlap+1+int(size)), []string{"A", "B"})
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q by %d: got %q, %v, want %q", environ, size, got, err, want)
		}
	})
}
