//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/supervisor"
)

func addLeaving(s *supervisor.Status) {
	now := time.Now()
	s.Current = 4
	s.Generations = []supervisor.GenerationStatus{{
		Generation: 3, PID: 42, State: supervisor.Stopping, Started: now.Add(-2*time.Hour - 3*time.Minute - time.Second),
		ReadyAt: now.Add(-2*time.Hour - 3*time.Minute + 100*time.Millisecond), Since: now.Add(-12050 * time.Millisecond), Deadline: now.Add(17950 * time.Millisecond),
		Command: supervisor.Command{Argv: []string{"/app", "--v1"}}, Trigger: supervisor.TriggerStart,
	}, {
		Generation: 4, PID: 57, State: supervisor.Ready, Started: now.Add(-12050 * time.Millisecond), ReadyAt: now.Add(-10850 * time.Millisecond),
		Since: now.Add(-10850 * time.Millisecond), Text: "Gunicorn arbiter booted", Command: supervisor.Command{Argv: []string{"/app", "--v2"}},
		Trigger: supervisor.TriggerRun, Asker: supervisor.Asker{UID: 0, PID: 99, Name: "crankctl"},
	}}
}

func TestPS(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(addLeaving)
	check(t, call(nil, "ps"), output{0, `GEN  PID  STATE     AGE   READY IN  STATUS                   COMMAND
3    42   stopping  2h3m  1.1s      draining 12s of 30s      /app --v1
4    57   ready     12s   1.2s      Gunicorn arbiter booted  /app --v2
`, ""})
	if got := call(nil, "ps", "-ready"); !strings.Contains(got.stdout, "/app --v2") || strings.Contains(got.stdout, "/app --v1") {
		t.Errorf("%+v", got)
	}
	if got := call(nil, "ps", "-o", "wide"); !strings.Contains(got.stdout, "crankctl (uid 0, pid 99)") {
		t.Errorf("%+v", got)
	}
	var list []control.Generation
	if err := json.Unmarshal([]byte(call(nil, "-o", "json", "ps", "-stopping", "-pid", "42").stdout), &list); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestPSShowsNoControlCharacters(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(func(s *supervisor.Status) {
		s.Generations[0].Text = "\x1b]0;owned\a\n\u202efoo"
		s.Generations[0].Command.Argv = []string{"/app", "\x1b[2J", "it's", ""}
	})
	got := call(nil, "ps").stdout
	if strings.ContainsAny(got, "\x1b\a\u202e") || strings.Count(got, "\n") != 2 || !strings.Contains(got, `'it'\''s' ''`) {
		t.Errorf("%q", got)
	}
}

func TestStatus(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(addLeaving)
	fake.Change(func(s *supervisor.Status) {
		s.LastSwap = &supervisor.Outcome{OK: true, Trigger: supervisor.TriggerRun, From: 3, Generation: 4, Took: 2200 * time.Millisecond}
	})
	check(t, call(nil, "status"), output{0, `web: ready, generation 4 (pid 57), crank up 1h

GEN  PID  STATE     AGE   READY IN  STATUS                   COMMAND
3    42   stopping  2h3m  1.1s      draining 12s of 30s      /app --v1
4    57   ready     12s   1.2s      Gunicorn arbiter booted  /app --v2

FD  SOCKET            BOUND
3   http=tcp://:8080  tcp://[::]:8080

last swap: run 3 -> 4 in 2.2s
`, ""})
	fake.Change(func(s *supervisor.Status) {
		s.Ready, s.Reason, s.Current, s.Generations = false, "exited 1", 0, nil
		s.RestartAt = time.Now().Add(time.Hour)
	})
	got := call(nil, "status")
	if got.code != 1 || got.stderr != "" || !strings.HasPrefix(got.stdout, "web: not ready (exited 1), crank up 1h\nnext start in ") {
		t.Errorf("%+v", got)
	}
	if got := call(nil, "status", "-o", "json"); got.code != 1 || !json.Valid([]byte(got.stdout)) {
		t.Errorf("%+v", got)
	}
}

func TestInfo(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(addLeaving)
	check(t, call(nil, "info"), output{0, `name     web
pid      1
version  v1.2.3
go       go1.26.0
up       2h3m
prefix   /run/crank
conf     /run/crank/web.conf
ctl      /run/crank/web.ctl
current  generation 4 (pid 57)
command  /app --v2
socket   fd 3 tcp://[::]:8080 (http)
-bind    http=:8080
-stop    20s
`, ""})
}

func TestReady(t *testing.T) {
	dir := place(t)
	fake := serve(t, dir, "web")
	check(t, call(nil, "ready"), output{0, "ready\n", ""})
	fake.Change(func(s *supervisor.Status) { s.Ready, s.Reason = false, "generation 4 is starting" })
	check(t, call(nil, "ready"), output{1, "", "error: not ready: generation 4 is starting\n"})
	// A probe knows only yes and no.
	if got := call(nil, "ready", "-ctl", dir+"/not.ctl"); got.code != 1 {
		t.Errorf("%+v", got)
	}
}

func TestKill(t *testing.T) {
	fake := serve(t, place(t), "web")
	check(t, call(nil, "kill", "-ready"), output{1, "", "error: no generation matches, nothing was sent: see crankctl ps\n"})
	var got supervisor.KillRequest
	fake.OnKill = func(k supervisor.KillRequest) ([]supervisor.GenerationStatus, error) {
		got = k
		return fake.Status().Generations, nil
	}
	check(t, call(nil, "kill", "-signal", "INT", "-pid", "42"), output{0, "sent SIGINT to web generation 3 (pid 42)\n", ""})
	if got.Signal != syscall.SIGINT || got.PID != 42 || len(got.States) != 0 {
		t.Errorf("%+v", got)
	}
	fake.OnKill = func(supervisor.KillRequest) ([]supervisor.GenerationStatus, error) {
		return nil, errors.New("operation not permitted")
	}
	check(t, call(nil, "kill", "-stopping"), output{1, "", "error: operation not permitted\n"})
}

func TestAbort(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(func(s *supervisor.Status) {
		s.Generations = append(s.Generations, supervisor.GenerationStatus{Generation: 4, PID: 57, State: supervisor.Starting})
	})
	fake.OnAbort = func(supervisor.Asker) (int, error) { return 4, nil }
	check(t, call(nil, "abort"), output{0, "aborted web 4 (pid 57)\n", ""})
}

func TestWait(t *testing.T) {
	serve(t, place(t), "web")
	for _, args := range [][]string{{"wait"}, {"wait", "-ready"}, {"wait", "-idle"}, {"wait", "-generation", "3"}} {
		got := call(nil, args...)
		if want := regexp.MustCompile(`^web (ready|idle) after 0\.\ds, generation 3 \(pid 42\)\n$`); got.code != 0 || !want.MatchString(got.stdout) {
			t.Errorf("%v: %+v", args, got)
		}
	}
	check(t, call(nil, "wait", "-generation", "2"), output{1, "", "error: generation 2 is not current and will not be, generation 3 (pid 42) still serving\n"})
}

func TestEvents(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "ready", Took: time.Second, Text: "a\x1bb", Trigger: "run"})
	fake.Event(supervisor.Event{Kind: "shutdown", Cause: "SIGTERM"})
	fake.Event(supervisor.Event{Kind: "refused", Trigger: "run", Cause: "busy", Asker: supervisor.Asker{UID: 1, PID: 2, Name: "sh"}})
	lines := strings.Split(call(nil, "events").stdout, "\n")
	for i, want := range []string{
		`  web: generation 4 ready         1.0s   "a?b"`,
		"  web: shutdown      SIGTERM",
		"  web: refused       run busy by sh (uid 1, pid 2)",
	} {
		if !strings.HasSuffix(lines[i], want) {
			t.Errorf("got  %q\nwant %q", lines[i], want)
		}
	}
	if got := call(nil, "events", "-o", "json").stdout; strings.Count(got, "\n") != 3 || !strings.Contains(got, `"kind":"shutdown"`) {
		t.Errorf("%q", got)
	}
}

func TestCompact(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0.0s", 0.04: "0.0s", 1.25: "1.2s", 9.94: "9.9s", 9.96: "9s", 12.9: "12s", 59.9: "59s", 60: "1m", 185: "3m5s",
		3600: "1h", 7380: "2h3m", 86400: "1d", 4*86400 + 3600: "4d1h",
	} {
		if got := compact(seconds); got != want {
			t.Errorf("compact(%v) = %s, want %s", seconds, got, want)
		}
	}
}
