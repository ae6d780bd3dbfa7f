package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

// What a candidate says, to whomever, changes nothing for the generation that serves. Where it exits
// "while settling" its READY counts, as it should; where "before ready", nothing has counted as one.
var kindsOfReadiness = []struct{ mode, reason string }{
	{"dies", "exited 8 while settling"},
	{"garbage", "exited 8 before ready"},
	{"largest", "exited 8 before ready"},
	{"flood", "exited 8 before ready"},
	{"to_another", "exited 8 before ready"},
	{"from_another", "exited 8 before ready"},
	{"dead", "exited 8 while settling"},
	{"unprivileged", "exited 8 while settling"}, // only root
}

func TestBrokenReadiness(t *testing.T) {
	programs.Need(t, "python3")
	script, err := filepath.Abs(filepath.Join("testdata", "readiness.py"))
	if err != nil {
		t.Fatal(err)
	}
	// The one that serves has a helper, which talks to the candidates.
	const withFriend = `(cd "${CRANK_CTL%/*}" && exec python3 "$0" friend) & exec "$@"`
	i := start(t, []string{"-settle", "60s"}, append([]string{"sh", "-c", withFriend, script}, app()...)...)
	if err := os.Chmod(i.dir, 0o755); err != nil { // for the unprivileged one
		t.Fatal(err)
	}
	i.load()
	if !root.Full() {
		t.Log("NOT TESTED: an unprivileged candidate: only root can start one as another user")
	}
	i.traffic(200)
	for range 3 {
		for _, k := range kindsOfReadiness {
			if k.mode == "unprivileged" && !root.Full() {
				continue
			}
			_, pid := i.current()
			i.kept(broken{name: k.mode, argv: []string{"python3", script, k.mode, fmt.Sprint(pid)}, reason: k.reason})
			i.mustBeReady(k.mode)
		}
	}
	i.traffic(200)
	if report := i.stop(); len(report.Bodies) != 1 {
		t.Errorf("answers came from %d versions: %v", len(report.Bodies), report.Bodies)
	}
}

// mustBeReady checks that crank is ready, and that the one that serves did not say what others said for it.
func (i *instance) mustBeReady(after string) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := i.client.Info(ctx)
	if err != nil || info.Current == nil {
		i.t.Fatalf("info: %+v, error %v", info, err)
	}
	if ready, err := i.client.Ready(ctx); err != nil || !ready.Ready || info.Current.Status != "" {
		i.t.Errorf("after %s: %+v, status %q, error %v", after, ready, info.Current.Status, err)
	}
}

// One that says READY before it accepts becomes current, and what comes until it does waits.
func TestReadyTooEarly(t *testing.T) {
	i := start(t, []string{"-settle", "50ms"}, app()...)
	i.load()
	i.traffic(200)
	early := fmt.Sprintf(`%s notify READY=1; until [ -e "$0" ]; do sleep 0.01; done; unset NOTIFY_SOCKET NOTIFY_FD; exec "$@"`,
		filepath.Join(bin, "crankctl"))
	for n := range 5 {
		open := filepath.Join(i.dir, fmt.Sprint("open", n))
		i.swap(append([]string{"sh", "-c", early, open}, app()...)...)
		i.idle() // the old one is gone, and nobody accepts
		if err := os.WriteFile(open, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		i.traffic(100)
	}
	i.stop()
}

// All generations share one queue: a candidate that accepts before it is ready answers clients, whatever -ready waits for, and one that
// accepts only then answers none. docs/apps.md says so.
func TestAcceptsBeforeReady(t *testing.T) {
	const requests = 80
	for _, ready := range []string{"notify", "exec:test {generation} = 1 -o -e DIR/open"} {
		for _, early := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, early %v", strings.Fields(ready)[0], early), func(t *testing.T) {
				i := startOn(t, []string{web}, []string{"-ready", ready, "-start", "120s", "-settle", "0"}, app("-body", "old")...)
				open := filepath.Join(i.dir, "open")
				i.startCandidate(app("-body", "new", "-ready-when", open, fmt.Sprintf("-accept-before-ready=%v", early)), func() bool {
					log, _ := os.ReadFile(filepath.Join(i.dir, "crank.log"))
					return strings.Count(string(log), "\nserving ") == 2
				})
				fromNew := 0
				deadline := time.Now().Add(patience)
				for n := 0; n < requests || early && fromNew == 0 && time.Now().Before(deadline); n++ {
					if i.answer() == "new" {
						fromNew++
					}
				}
				if generation, _ := i.current(); generation != 1 || early != (fromNew > 0) {
					t.Errorf("generation %d is current, and %d of %d clients were answered by a candidate that is not ready", generation, fromNew, requests)
				}
				t.Logf("%d of at least %d clients were answered by a candidate that is not ready", fromNew, requests)
				if err := os.WriteFile(open, nil, 0o644); err != nil {
					t.Fatal(err)
				}
				i.idle()
				if generation, _ := i.current(); generation != 2 || i.answer() != "new" {
					t.Errorf("generation %d is current", generation)
				}
			})
		}
	}
}

// startCandidate starts a candidate, and waits until it has reached a state.
func (i *instance) startCandidate(command []string, asFar func() bool) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := i.client.Run(ctx, control.RunRequest{Command: command}, nil); err != nil {
		i.t.Fatal(err)
	}
	for !asFar() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			i.t.Fatalf("%v does not start", command)
		}
	}
}

// answer sends one request, on a connection of its own.
func (i *instance) answer() string {
	i.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + i.addresses["web"].address)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return string(body)
}
