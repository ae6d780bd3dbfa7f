package script

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/processes"
)

// bursts is an app that repeatedly writes 200 KiB to stderr in one go: lines of all lengths, some longer than a pipe. When it is asked
// to stop, it finishes what it is writing.
const bursts = `
import os, signal, time
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
generation, line = os.environ["CRANK_GENERATION"], 0
while not stopped:
    burst = b""
    while len(burst) < 200 << 10:
        line += 1
        burst += b"generation %s line %d %s end\n" % (generation.encode(), line, b"x" * (line * 7919 % 5000 if line % 40 else 90000))
    while burst:
        burst = burst[os.write(2, burst):]
    time.sleep(0.002)
`

// TestWholeLines: under bursts of two generations, each line of crank's stderr is one line of the app or one of crank's log, and nothing of
// the app's is lost or reordered.
func TestWholeLines(t *testing.T) {
	t.Parallel()
	const swaps = 15
	crank := exec.Command("crank", "-bind", "127.0.0.1:0", "-ctl", "off", "-conf", "off", "-ready", "none", "-settle", "0", "-log-format", "json",
		"--", "python3", "-c", bursts)
	crank.Env = processes.Environment("CRANK_PREFIX=" + t.TempDir())
	stderr, err := crank.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := crank.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { _ = crank.Process.Kill() })
	defer kill.Stop()

	form := regexp.MustCompile(`^generation (\d+) line (\d+) x* end$`)
	last, current := map[string]int{}, 0
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for bad := 0; lines.Scan() && bad < 5; {
		if m := form.FindSubmatch(lines.Bytes()); m != nil {
			generation, _ := strconv.Atoi(string(m[1]))
			last[string(m[1])]++
			if string(m[2]) != strconv.Itoa(last[string(m[1])]) {
				t.Errorf("generation %s: line %s is number %d", m[1], m[2], last[string(m[1])])
				bad++
			}
			if generation > current { // it runs: the next one
				current = generation
				_ = crank.Process.Signal(map[bool]syscall.Signal{true: syscall.SIGHUP, false: syscall.SIGTERM}[current < swaps])
			}
			continue
		}
		if !json.Valid(lines.Bytes()) {
			t.Errorf("neither a line of the app nor of crank's log: %s", ends(lines.Text()))
			bad++
		}
	}
	_ = crank.Process.Signal(syscall.SIGTERM) // if it has failed
	_, _ = io.Copy(io.Discard, stderr)
	if err := crank.Wait(); err != nil || lines.Err() != nil || current != swaps {
		t.Errorf("generation %d was the last: %v, %v", current, err, lines.Err())
	}
}

// ends returns a line without its middle.
func ends(line string) string {
	if len(line) < 400 {
		return line
	}
	return fmt.Sprintf("%s... (%d bytes) ...%s", line[:200], len(line), line[len(line)-200:])
}

// TestUnfinishedLines: an app that does not end its line delays no other writer. The next writer starts a new line.
func TestUnfinishedLines(t *testing.T) {
	t.Parallel()
	crank := exec.Command("crank", "-bind", "127.0.0.1:0", "-ctl", "off", "-conf", "off", "-ready", "none", "-settle", "0", "-log-format", "json",
		"--", "sh", "-c", "trap 'exit 0' TERM; printf working >&2; while :; do sleep 0.05; done")
	crank.Env = processes.Environment("CRANK_PREFIX=" + t.TempDir())
	stderr, err := crank.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := crank.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = crank.Process.Kill() })
	defer kill.Stop()
	var text strings.Builder
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		before := strings.Count(text.String(), "working")
		for buf := make([]byte, 1); strings.Count(text.String(), "working") == before; text.Write(buf) {
			if _, err := stderr.Read(buf); err != nil {
				t.Fatalf("%v\n%s", err, &text)
			}
		}
		_ = crank.Process.Signal(sig)
	}
	_, _ = io.Copy(&text, stderr)
	if err := crank.Wait(); err != nil {
		t.Error(err)
	}
	working := 0
	for line := range strings.Lines(text.String()) {
		switch {
		case line == "working\n" || line == "working":
			working++
		case !json.Valid([]byte(line)):
			t.Errorf("%q", line)
		}
	}
	if working != 2 {
		t.Errorf("the app's text was found %d times, want 2:\n%s", working, &text)
	}
}
