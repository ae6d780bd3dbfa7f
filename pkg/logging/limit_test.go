package logging

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

// limitedLog runs a test with a clock of its own; written returns the lines so far that hold a text.
func limitedLog(t *testing.T, test func(log logr.Logger, written func(string) []string, end func())) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		log, writer := New(out, "text", 0, false, "web")
		end := func() { writer.Close(time.Minute) }
		defer end()
		test(log, func(text string) (lines []string) {
			synctest.Wait()
			for _, line := range out.all() {
				if strings.Contains(line, text) {
					lines = append(lines, line)
				}
			}
			return lines
		}, end)
	})
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasSuffix(got[i], want[i]+"\n")
	}
	if !ok {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOneLineForAPeer: what strangers cause is one line for each in ten seconds, and one that says how many there were.
func TestOneLineForAPeer(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		for i := range 9200 {
			log.Info("denied", Peer, "uid 1", "n", i)
		}
		log.Info("denied", Peer, "uid 2", "n", 0)
		wantLines(t, written("uid 1"), `n=0`)
		wantLines(t, written("uid 2"), `n=0`)
		time.Sleep(interval)
		wantLines(t, written("uid 1"), `n=0`, `n=9199 suppressed=9198`)
		wantLines(t, written("uid 2"), `n=0`)
		for i := range 100 { // a flood that goes on
			log.Info("denied", Peer, "uid 1", "n", i)
			time.Sleep(time.Second)
		}
		time.Sleep(2 * interval)
		if n := len(written("uid 1")); n > 13 {
			t.Errorf("%d lines in 100 seconds", n)
		}
		log.Info("denied", Peer, "uid 1", "n", "again")
		if got := written("again"); len(got) != 1 {
			t.Errorf("after a pause: %q", got)
		}
	})
}

// TestManyPeers: there are bounds for those who have many addresses.
func TestManyPeers(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		for range 3 {
			for i := range 10_000 {
				log.Info("denied", Peer, fmt.Sprint("tcp://127.0.0.", i))
			}
			log.Info("generation ready", "generation", 1)
			time.Sleep(2 * interval)
		}
		if n, most := len(written("denied")), 3*2*(maxPeers+1); n > most {
			t.Errorf("%d lines, want %d at most", n, most)
		}
		wantLines(t, written("generation ready"), "generation=1", "generation=1", "generation=1")
	})
}

// TestSameMessage: what an app or a client can cause is limited whoever logs it, and what else is logged is not.
func TestSameMessage(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		for i := range 1000 {
			log.Info("MAINPID refused", "generation", 1, "n", i)
			log.Error(errors.New("full"), "command not saved", "n", i)
			log.Info("generation ready", "generation", i)
		}
		if n := len(written("MAINPID")); n != burst {
			t.Errorf("%d lines of the app, want %d", n, burst)
		}
		if n := len(written("not saved")); n != burst {
			t.Errorf("%d errors, want %d", n, burst)
		}
		if n := len(written("generation ready")); n != 1000 {
			t.Errorf("%d moves of 1000", n)
		}
		end()
		if got := written("suppressed=989"); len(got) != 2 {
			t.Errorf("at the end: %q", got)
		}
		log.Info("late") // is lost, and does no harm
	})
}

// TestManyMessages: there is a bound for them all.
func TestManyMessages(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		for i := range 10 * maxKeys {
			log.Info("moved", "generation", i)
			synctest.Wait()
		}
		if n, most := len(written("moved")), maxKeys+burst; n > most {
			t.Errorf("%d lines, want %d at most", n, most)
		}
	})
}

// TestTextsAreCut: what strangers have chosen is short and prints, and nothing is endless.
func TestTextsAreCut(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		long := strings.Repeat("é", 8000)
		log.Info("denied", Peer, "uid 1", "path", "/\u202e\x1b"+long)
		if got := written("denied"); len(got) != 1 || len(got[0]) > 400 || !strings.Contains(got[0], "/??é") || !strings.Contains(got[0], "... (16003 bytes)") {
			t.Errorf("of a stranger: %q", got)
		}
		log.Info(long, "cause", long)
		log.Error(errors.New(long), "failed")
		for _, line := range append(written("cause="), written("failed")...) {
			if len(line) > 3000 {
				t.Errorf("%d bytes: %s", len(line), line)
			}
		}
	})
}
