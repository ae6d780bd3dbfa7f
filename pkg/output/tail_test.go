package output

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestTailLines(t *testing.T) {
	full := strings.Repeat("x", TailSize)
	for _, test := range []struct {
		name   string
		writes []string
		want   []string
	}{
		{"nothing", nil, nil},
		{"empty", []string{""}, nil},
		{"only a newline", []string{"\n"}, nil},
		{"one line", []string{"a\n"}, []string{"a"}},
		{"no newline", []string{"a\nb"}, []string{"a", "b"}},
		{"in pieces", []string{"a", "b\n\nc", "d\r\n"}, []string{"ab", "", "cd"}},
		{"exactly full", []string{full[1:] + "\n"}, []string{full[1:]}},
		{"one byte more", []string{full + "\n"}, []string{full[1:]}},
		{"cut first line goes", []string{full, "\nlast\n"}, []string{"last"}},
		{"cut between lines", []string{"first\n", full[6:] + "\nlast\n"}, []string{full[6:], "last"}},
		{"cut between lines at once", []string{"first\n" + full[6:] + "\nlast\n"}, []string{full[6:], "last"}},
		{"large then small", []string{strings.Repeat(full, 5), "\na\n"}, []string{"a"}},
		{"cut in a character", []string{"é" + full[1:]}, []string{full[1:]}},
		{"not printable", []string{"\x1b[31mred\x00\ttab\x9b\xffé\u202e"}, []string{`\x1b[31mred\x00` + "\ttab\ufffd\ufffdé" + `\u202e`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var tail Tail
			for _, w := range test.writes {
				if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatal(n, err)
				}
			}
			for range 2 {
				if got := tail.Lines(); !slices.Equal(got, test.want) {
					t.Errorf("got %.200q, want %.200q", got, test.want)
				}
			}
		})
	}
}

func TestTailConcurrent(t *testing.T) {
	var tail Tail
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for i := range 2000 {
				fmt.Fprintf(&tail, "line %04d\n", i)
				if i%100 == 0 {
					tail.Lines()
				}
			}
		})
	}
	writers.Wait()
	lines := tail.Lines()
	if want := TailSize / len("line 0000\n"); len(lines) != want {
		t.Errorf("%d lines, want %d", len(lines), want)
	}
	for _, line := range lines {
		if len(line) != len("line 0000") || !strings.HasPrefix(line, "line ") {
			t.Errorf("line %q", line)
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("a\nb\n"), uint16(1), uint8(1))
	f.Add([]byte("é\xff\x1b\n"), uint16(3), uint8(255))
	f.Add(bytes.Repeat([]byte("0123456789\n"), 100), uint16(700), uint8(40))
	f.Fuzz(func(t *testing.T, data []byte, size uint16, times uint8) {
		if len(data)*int(times) > 32<<10 {
			return
		}
		data = bytes.Repeat(data, int(times))
		var tail Tail
		for chunk := range slices.Chunk(data, int(size)+1) {
			tail.Write(chunk)
		}
		var whole Tail
		whole.Write(data)
		lines := tail.Lines()
		if !slices.Equal(lines, whole.Lines()) {
			t.Fatalf("in pieces %q, at once %q", lines, whole.Lines())
		}
		if cap(tail.kept) > 4*TailSize {
			t.Fatalf("holds %d bytes", cap(tail.kept))
		}
		for _, line := range lines {
			if !utf8.ValidString(line) || strings.ContainsAny(line, "\x00\x1b\r\n") {
				t.Fatalf("line %q", line)
			}
		}
	})
}
