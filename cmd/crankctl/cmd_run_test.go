//go:build linux

package main

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/control/server/servertest"
	"github.com/crankctl/crank/pkg/supervisor"
)

// good swaps from generation 3 to 4.
func good(fake *servertest.Fake, saved error) func(supervisor.Request) (supervisor.Ticket, error) {
	return func(r supervisor.Request) (supervisor.Ticket, error) {
		swap := fake.Accept(4, 57)
		swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "started", Trigger: r.Trigger, Cause: "run (crankctl, pid 9, uid 0)"})
		go func() {
			swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "ready", Took: 1200 * time.Millisecond, Text: "Gunicorn arbiter booted"})
			swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "settled", Cause: "settled", Took: time.Second})
			swap.Event(supervisor.Event{Generation: 3, PID: 42, Kind: "stopping", Cause: "SIGTERM: replaced by generation 4", Took: time.Minute})
			done := make(chan error, 1)
			done <- saved
			swap.End(supervisor.Outcome{OK: true, Trigger: r.Trigger, From: 3, Generation: 4, PID: 57, Current: 4, CurrentPID: 57, Took: 2200 * time.Millisecond, Saved: done})
		}()
		return swap.Ticket, nil
	}
}

// bad is a generation 5 that exits.
func bad(fake *servertest.Fake) func(supervisor.Request) (supervisor.Ticket, error) {
	return func(r supervisor.Request) (supervisor.Ticket, error) {
		fake.Change(func(s *supervisor.Status) { s.Current = 4; s.Generations[0].Generation, s.Generations[0].PID = 4, 57 })
		swap := fake.Accept(5, 71)
		tail := supervisor.Tail{Lines: []string{"ModuleNotFoundError: No module named 'settings'"}}
		swap.Event(supervisor.Event{Generation: 5, PID: 71, Kind: "started"})
		swap.Event(supervisor.Event{Generation: 5, PID: 71, Kind: "exited", Cause: "exited 3 before ready"})
		swap.Event(supervisor.Event{Generation: 5, PID: 71, Kind: "failed", Cause: "exited 3 before ready", Took: 300 * time.Millisecond, Stderr: tail})
		swap.End(supervisor.Outcome{Trigger: r.Trigger, From: 4, Generation: 5, PID: 71, Current: 4, CurrentPID: 57, ExitCode: 3, Reason: "exited 3 before ready", Stderr: tail})
		return swap.Ticket, nil
	}
}

const goodProgress = `web: generation 4 started       pid 57
web: generation 4 ready         1.2s   "Gunicorn arbiter booted"
web: generation 4 settled       1.0s
web: generation 3 stopping      pid 42  SIGTERM
`

const badProgress = `web: generation 5 started       pid 71
web: generation 5 failed        0.3s   exited 3 before ready
  | ModuleNotFoundError: No module named 'settings'
`

const badError = "error: swap failed, generation 4 (pid 57) still serving\n"

func TestRunOutput(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.OnSwap = good(fake, nil)
	check(t, call(nil, "run", "-wait", "--", "/app", "--v2"), output{0, "swapped web 3 -> 4 in 2.2s\n", goodProgress})
	check(t, call(nil, "reload"), output{0, "swapped web 3 -> 4 in 2.2s\n", goodProgress})
	check(t, call(nil, "rollback", "-q"), output{0, "", ""})

	fake.OnSwap = bad(fake)
	check(t, call(nil, "run", "-wait", "--", "/app", "--broken"), output{1, "", badProgress + badError})
	check(t, call(nil, "-q", "reload"), output{1, "", "  | ModuleNotFoundError: No module named 'settings'\n" + badError})
}

func TestRunWithoutWait(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
		swap := fake.Accept(4, 57)
		swap.Event(supervisor.Event{Generation: 4, PID: 57, Kind: "started"})
		return swap.Ticket, nil
	}
	want := output{0, "started web 4 (pid 57)\n", "web: generation 4 started       pid 57\nwhether it serves: crankctl status, or -wait\n"}
	check(t, call(nil, "run", "/app", "-wait"), want) // a flag of the app
	check(t, call(nil, "reload", "-wait=false"), want)
}

func TestRunJSON(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.OnSwap = bad(fake)
	got := call(nil, "-o", "json", "run", "-wait")
	var result control.Result
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil {
		t.Fatal(err)
	}
	if got.code != 1 || result.OK || result.Generation != 5 || len(result.Stderr) != 1 || got.stderr != badProgress+badError {
		t.Errorf("%+v", got)
	}
}

func TestRunWarnsOfWhatIsNotSaved(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.OnSwap = good(fake, &supervisor.Refusal{Message: "no space left on device"})
	check(t, call(nil, "reload"), output{0, "swapped web 3 -> 4 in 2.2s\n", goodProgress + "warning: the command is not saved: no space left on device\n"})
}

func TestRunRequest(t *testing.T) {
	dir := place(t)
	fake := serve(t, dir, "server")
	var got supervisor.Request
	accept := good(fake, nil)
	fake.OnSwap = func(r supervisor.Request) (supervisor.Ticket, error) {
		got = r
		return accept(r)
	}
	here, err := filepath.Abs("here")
	if err != nil {
		t.Fatal(err)
	}
	one, zero := 1, 0
	for _, test := range []struct {
		name string
		args []string
		want supervisor.Request
	}{
		{"a line of 2014", []string{"run", "-name", "server", "-prefix", dir, "-start", "10", "-stop", "20", "-wait", "--", "./app"},
			supervisor.Request{Change: supervisor.Change{Argv: []string{"./app"}, Start: 10 * time.Second, Stop: 20 * time.Second}}},
		{"preconditions", []string{"run", "-pid=1", "-generation", "0", "-force"},
			supervisor.Request{IfPID: &one, IfGeneration: &zero, Force: true}},
		{"environment", []string{"run", "-env", "A=b c", "-env", "B-", "-env", "TOKEN", "-env", "C="},
			supervisor.Request{Change: supervisor.Change{Env: []string{"A=b c", "B-", "TOKEN=s3cret", "C="}}}},
		{"directory", []string{"run", "--cwd", "here", "app"},
			supervisor.Request{Change: supervisor.Change{Dir: here, Argv: []string{"app"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if out := call([]string{"TOKEN=s3cret"}, test.args...); out.code != 0 {
				t.Fatalf("%+v", out)
			}
			got.Asker = supervisor.Asker{}
			test.want.Trigger = supervisor.TriggerRun
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
