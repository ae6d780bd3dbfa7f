package load

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
