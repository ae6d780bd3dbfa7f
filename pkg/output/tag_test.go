package output

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const tagged = "2026-11-22T12:00:00.012Z web[4] 57 err "

// recorder keeps each Write.
type recorder struct{ writes [][]byte }

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func testTagger(to io.Writer) *tagger {
	tag := newTagger(to, "web", 4, 57, "err")
	// Another zone, and more digits than are printed.
	tag.now = func() time.Time {
		return time.Date(2026, 11, 22, 13, 0, 0, 12_999_999, time.FixedZone("", 3600))
	}
	return tag
}

func tagAll(data []byte, size int) *recorder {
	var r recorder
	tag := testTagger(&r)
	for chunk := range slices.Chunk(data, size) {
		tag.Write(chunk)
	}
	tag.Close()
	return &r
}

func TestTagLines(t *testing.T) {
	full := strings.Repeat("x", MaxLine)
	for _, test := range []struct {
		name, text string
		want       []string // without tagged
	}{
		{"nothing", "", nil},
		{"one", "a\n", []string{"| a"}},
		{"no newline", "a\nb", []string{"| a", "| b"}},
		{"empty lines", "\n\n", []string{"| ", "| "}},
		{"bytes as they are", "\xff\x1b\x00\r\n", []string{"| \xff\x1b\x00\r"}},
		{"longest", full + "\nb\n", []string{"| " + full, "| b"}},
		{"longest at the end", full, []string{"| " + full}},
		{"one more", full + "y\nb\n", []string{"| " + full, "+ y", "| b"}},
		{"twice", full + full + "\nb", []string{"| " + full, "+ " + full, "| b"}},
		{"twice and one", "a\n" + full + full + "z", []string{"| a", "| " + full, "+ " + full, "+ z"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1000, 4096, MaxLine - 1, MaxLine, MaxLine + 1, 3 << 20} {
				var got []string
				for _, write := range tagAll([]byte(test.text), size).writes {
					lines, ended := strings.CutSuffix(string(write), "\n")
					if !ended {
						t.Fatalf("chunks of %d: a write ends in a line: %.100q", size, write)
					}
					got = append(got, strings.Split(lines, "\n")...)
				}
				for i := range got {
					got[i] = strings.TrimPrefix(got[i], tagged)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("chunks of %d: got %.100q, want %.100q", size, got, test.want)
				}
			}
		})
	}
}

// All lines of a chunk are one write; memory stays bounded where the prefixes are most of it.
func TestTagBatches(t *testing.T) {
	if n := len(tagAll(bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 400), chunkSize).writes); n != 1 {
		t.Errorf("%d writes for one chunk", n)
	}
	var r recorder
	tag := testTagger(&r)
	tag.Write(bytes.Repeat([]byte("\n"), chunkSize))
	lines := 0
	for _, write := range r.writes {
		if len(write) > batchSize {
			t.Errorf("a write of %d bytes", len(write))
		}
		lines += bytes.Count(write, []byte("\n"))
	}
	if lines != chunkSize {
		t.Errorf("%d lines, want %d", lines, chunkSize)
	}
	if cap(tag.batch)+cap(tag.partial) > 4*batchSize {
		t.Errorf("holds %d bytes", cap(tag.batch)+cap(tag.partial))
	}
}

func TestTagAllocatesNothing(t *testing.T) {
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), chunkSize/100)
	tag := testTagger(io.Discard)
	if n := testing.AllocsPerRun(20, func() { tag.Write(chunk) }); n > 0 {
		t.Errorf("%v allocations for a chunk", n)
	}
}

func FuzzTag(f *testing.F) {
	f.Add([]byte("a\nb\n"), uint16(0), uint16(1))
	f.Add([]byte("a\n\r\xff"), uint16(1), uint16(2))
	f.Add([]byte("0123456789"), uint16(100), uint16(20000))
	form := regexp.MustCompile(`(?s)^` + regexp.QuoteMeta(tagged) + `([|+]) (.*)$`)
	f.Fuzz(func(t *testing.T, data []byte, size, times uint16) {
		if len(data)*int(times) > 4*MaxLine {
			return
		}
		data = bytes.Repeat(data, int(times))
		var text []byte
		for _, write := range tagAll(data, int(size)+1).writes {
			for line := range bytes.Lines(write) {
				parts := form.FindSubmatch(bytes.TrimSuffix(line, []byte("\n")))
				if parts == nil {
					t.Fatalf("line %.100q", line)
				}
				if len(parts[2]) > MaxLine {
					t.Fatalf("a piece of %d bytes", len(parts[2]))
				}
				if parts[1][0] == '+' {
					text = bytes.TrimSuffix(text, []byte("\n"))
				}
				text = append(append(text, parts[2]...), '\n')
			}
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			data = append(data, '\n')
		}
		if !bytes.Equal(text, data) {
			t.Fatalf("got %.100q, want %.100q", text, data)
		}
	})
}

func BenchmarkTag(b *testing.B) {
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), chunkSize/100)
	tag := newTagger(io.Discard, "web", 4, 57, "err")
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		tag.Write(chunk)
	}
}

// TestTagGivesMemoryBack: one long line does not cost its memory for ever.
func TestTagGivesMemoryBack(t *testing.T) {
	tag := testTagger(io.Discard)
	for range 3 {
		if _, err := tag.Write(bytes.Repeat([]byte("x"), MaxLine)); err != nil {
			t.Fatal(err)
		}
		if _, err := tag.Write([]byte("\nshort\n")); err != nil {
			t.Fatal(err)
		}
		if held := cap(tag.batch) + cap(tag.partial); held > 4*batchSize {
			t.Errorf("holds %d bytes", held)
		}
	}
}
