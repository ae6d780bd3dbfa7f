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

// limitedLog runs a test with a fake clock, so its sleeps take no time; written returns the lines so far that contain a text.
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

// TestOneLineForAPeer: each stranger causes one line in ten seconds, and one that says how many others there were.
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
		for i := range 100 { // a continuing flood
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

// TestEachIntervalOnTime: a count is written at the end of its own interval, also where a later one started to count first.
func TestEachIntervalOnTime(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		log.Info("denied", Peer, "uid 1", "n", 0)
		time.Sleep(interval / 2)
		for i := range 2 {
			log.Info("denied", Peer, "uid 2", "n", i)
		}
		log.Info("denied", Peer, "uid 1", "n", 1)
		time.Sleep(interval / 2)
		wantLines(t, written("uid 1"), "n=0", "n=1")
		wantLines(t, written("uid 2"), "n=0")
		time.Sleep(interval / 2)
		wantLines(t, written("uid 2"), "n=0", "n=1")
	})
}

// TestManyPeers: a stranger with many addresses is limited too.
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

// TestSameMessage: lines that an app or a client can cause are limited, whichever code logs them; other lines are not.
func TestSameMessage(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		for i := range 1000 {
			log.Info("MAINPID refused", "generation", 1, "n", i)
			log.Error(errors.New("full"), "command not saved", "n", i)
			log.Info("generation ready", "generation", i)
		}
		if n := len(written("MAINPID")); n != burst {
			t.Errorf("%d lines caused by the app, want %d", n, burst)
		}
		if n := len(written("not saved")); n != burst {
			t.Errorf("%d errors, want %d", n, burst)
		}
		if n := len(written("generation ready")); n != 1000 {
			t.Errorf("%d of 1000 generations logged as ready", n)
		}
		end()
		if got := written("suppressed=989"); len(got) != 2 {
			t.Errorf("at the end: %q", got)
		}
		log.Info("late") // is dropped, and does no harm
	})
}

// TestManyMessages: the total is limited.
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

// TestTextsAreCut: texts that strangers chose are short and printable, and no text is unlimited.
func TestTextsAreCut(t *testing.T) {
	limitedLog(t, func(log logr.Logger, written func(string) []string, end func()) {
		long := strings.Repeat("é", 8000)
		log.Info("denied", Peer, "uid 1", "path", "/\u202e\x1b"+long)
		if got := written("denied"); len(got) != 1 || len(got[0]) > 400 || !strings.Contains(got[0], "/??é") || !strings.Contains(got[0], "... (16003 bytes)") {
			t.Errorf("from a stranger: %q", got)
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
