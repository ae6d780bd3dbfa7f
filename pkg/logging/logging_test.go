package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// long is far more than anything here takes, also on a busy machine.
const long = 30 * time.Second

// sink collects what is written to it, one element for each Write.
type sink struct {
	mu     sync.Mutex
	writes []string
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, string(p))
	return len(p), nil
}

func (s *sink) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.writes...)
}

func TestFormats(t *testing.T) {
	const stamp = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`
	for name, test := range map[string]struct {
		format     string
		isTerminal bool
		want       []string // regular expressions
	}{
		"terminal": {"auto", true, []string{
			`crank: generation ready generation=4 pid=57 took=1\.5s`,
			`crank: detail a="b c"`,
			`crank: error: cannot save the command err="disk full" path=/x`,
			`crank: "a\\x1b\[31m" n=1`,
			`crank: nothing more`,
			`crank: named k=v`,
			`crank: warning: disk nearly full free=3`,
		}},
		"text on a terminal": {"text", true, []string{`crank: generation ready .*`, `crank: detail .*`, `crank: error: .*`, `.*`, `.*`, `.*`, `.*`}},
		"text in a file": {"text", false, []string{
			`time=` + stamp + ` level=INFO msg="generation ready" name=web generation=4 pid=57 took=1\.5s`,
			`time=` + stamp + ` level=DEBUG msg=detail name=web a="b c"`,
			`time=` + stamp + ` level=ERROR msg="cannot save the command" name=web err="disk full" path=/x`,
			`time=` + stamp + ` level=INFO msg="a\\x1b\[31m" name=web n=1`,
			`time=` + stamp + ` level=INFO msg="nothing more" name=web`,
			`time=` + stamp + ` level=INFO msg=named name=web k=v`,
			`time=` + stamp + ` level=WARN msg="disk nearly full" name=web free=3`,
		}},
		"json": {"auto", false, []string{
			`{"time":"` + stamp + `","level":"INFO","msg":"generation ready","name":"web","generation":4,"pid":57,"took":"1\.5s"}`,
			`{"time":"` + stamp + `","level":"DEBUG","msg":"detail","name":"web","a":"b c"}`,
			`{"time":"` + stamp + `","level":"ERROR","msg":"cannot save the command","name":"web","err":"disk full","path":"/x"}`,
			`{"time":"` + stamp + `","level":"INFO","msg":"a\\u001b\[31m","name":"web","n":1}`,
			`{"time":"` + stamp + `","level":"INFO","msg":"nothing more","name":"web"}`,
			`{"time":"` + stamp + `","level":"INFO","msg":"named","name":"web","k":"v"}`,
			`{"time":"` + stamp + `","level":"WARN","msg":"disk nearly full","name":"web","free":3}`,
		}},
		"json on a terminal": {"json", true, []string{`{.*}`, `{.*}`, `{.*}`, `{.*}`, `{.*}`, `{.*}`, `{.*}`}},
	} {
		t.Run(name, func(t *testing.T) {
			out := &sink{}
			log, writer := New(out, test.format, 2, test.isTerminal, "web")
			log.Info("generation ready", "generation", 4, "pid", 57, "took", 1500*time.Millisecond)
			log.V(2).Info("detail", "a", "b c")
			log.V(3).Info("too much detail")
			log.Error(errors.New("disk full"), "cannot save the command", "path", "/x")
			log.Info("a\x1b[31m", "n", 1)
			log.Info("nothing more")
			log.WithValues("k", "v").Info("named")
			Warn(log, "disk nearly full", "free", 3)
			if !writer.Close(long) {
				t.Fatal("not closed")
			}
			got := out.all()
			if len(got) != len(test.want) {
				t.Fatalf("%d lines, want %d: %q", len(got), len(test.want), got)
			}
			for i, line := range got {
				if !regexp.MustCompile(`^` + test.want[i] + "\n$").MatchString(line) {
					t.Errorf("got  %q\nwant %s", line, test.want[i])
				}
				if strings.HasPrefix(line, "{") && !json.Valid([]byte(line)) {
					t.Errorf("not JSON: %q", line)
				}
			}
		})
	}
}

func TestLevelZero(t *testing.T) {
	out := &sink{}
	log, writer := New(out, "auto", 0, true, "web")
	log.V(1).Info("detail")
	if log.V(1).Enabled() || !log.Enabled() {
		t.Error("V(1) is enabled at level 0, or V(0) is not")
	}
	writer.Close(long)
	if got := out.all(); len(got) != 0 {
		t.Errorf("written: %q", got)
	}
}

func TestConcurrentLinesStayWhole(t *testing.T) {
	for _, isTerminal := range []bool{true, false} {
		out := &sink{}
		log, writer := New(out, "auto", 0, isTerminal, "web")
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 50 {
					log.WithValues("generation", 50*g+i).Info("swapped", "text", strings.Repeat("x", 100))
				}
			})
		}
		wg.Wait()
		if !writer.Close(long) {
			t.Fatal("not closed")
		}
		lines := out.all()
		if len(lines) != 400 {
			t.Errorf("%d lines, want 400 (dropped %d)", len(lines), writer.Dropped())
		}
		for _, line := range lines {
			if strings.Count(line, "\n") != 1 || strings.Count(line, "swapped") != 1 {
				t.Fatalf("not one line: %q", line)
			}
		}
	}
}

func TestLostIsSaidInTheSameFormat(t *testing.T) {
	for format, want := range map[string]string{"json": `"msg":"log lines dropped","name":"web","count":3}`, "text": "crank: log lines dropped count=3\n"} {
		_, writer := New(&bytes.Buffer{}, format, 0, true, "web")
		if got := string(writer.lost(3)); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		writer.Close(long)
	}
}
