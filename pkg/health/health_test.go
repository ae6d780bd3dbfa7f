package health

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// fake is a supervisor that does what the test says.
type fake struct {
	status  supervisor.Status
	stalled time.Duration
}

func (f *fake) Status() *supervisor.Status { return &f.status }
func (f *fake) Stalled() time.Duration     { return f.stalled }

func get(h http.Handler, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

var (
	nothing  = supervisor.Status{Reason: "nothing was started yet"}
	starting = supervisor.Status{Reason: "generation 1 is starting", Candidate: 1}
	ready    = supervisor.Status{Ready: true, Current: 1, EverCurrent: true}
	swapping = supervisor.Status{Ready: true, Current: 1, Candidate: 2, EverCurrent: true}
	says     = supervisor.Status{Reason: "generation 1 said STOPPING=1", Current: 1, EverCurrent: true}
	backoff  = supervisor.Status{Reason: "generation 1 exited 3 and is started again soon", EverCurrent: true}
	delaying = supervisor.Status{Stopping: true, Reason: "crank is shutting down", Current: 1, EverCurrent: true}
	ending   = supervisor.Status{Stopping: true, Reason: "crank is shutting down", EverCurrent: true}
)

func TestProbes(t *testing.T) {
	tests := []struct {
		status supervisor.Status
		target string
		code   int
		body   string
	}{
		{nothing, "/livez", 200, "ok\n"},
		{nothing, "/readyz", 503, "[-]current failed: nothing was started yet\n[+]shutdown ok\nreadyz check failed\n"},
		{nothing, "/startupz", 503, "[-]started failed: no generation was current yet\nstartupz check failed\n"},
		{starting, "/readyz", 503, "[-]current failed: generation 1 is starting\n[+]shutdown ok\nreadyz check failed\n"},
		{starting, "/startupz?verbose", 503, "[-]started failed: no generation was current yet\nstartupz check failed\n"},
		{ready, "/readyz", 200, "ok\n"},
		{ready, "/readyz?verbose", 200, "[+]current ok\n[+]shutdown ok\nreadyz check passed\n"},
		{ready, "/startupz", 200, "ok\n"},
		{ready, "/startupz?verbose=1", 200, "[+]started ok\nstartupz check passed\n"},
		{ready, "/livez?verbose", 200, "[+]loop ok\nlivez check passed\n"},
		{ready, "/healthz?verbose", 200, "[+]loop ok\nhealthz check passed\n"},
		{swapping, "/readyz", 200, "ok\n"},
		{says, "/readyz", 503, "[-]current failed: generation 1 said STOPPING=1\n[+]shutdown ok\nreadyz check failed\n"},
		{says, "/livez", 200, "ok\n"},
		{backoff, "/readyz", 503, "[-]current failed: generation 1 exited 3 and is started again soon\n[+]shutdown ok\nreadyz check failed\n"},
		{backoff, "/startupz", 200, "ok\n"},
		{delaying, "/readyz", 503, "[+]current ok\n[-]shutdown failed: crank is shutting down\nreadyz check failed\n"},
		{delaying, "/readyz?exclude=shutdown", 200, "ok\n"},
		{delaying, "/readyz?verbose&exclude=shutdown", 200, "[+]current ok\n[+]shutdown excluded: ok\nreadyz check passed\n"},
		{delaying, "/livez", 200, "ok\n"},
		{delaying, "/startupz", 200, "ok\n"},
		{ending, "/readyz?exclude=shutdown", 503, "[-]current failed: no generation is current\n[+]shutdown excluded: ok\nreadyz check failed\n"},
		{ending, "/readyz?exclude=shutdown&exclude=current", 200, "ok\n"},
		{ending, "/livez", 200, "ok\n"},
		{ready, "/readyz?verbose&exclude=shutdown&exclude=x%0Ay", 200,
			"[+]current ok\n[+]shutdown excluded: ok\nwarn: there is no check \"x\\ny\" to exclude\nreadyz check passed\n"},
	}
	for _, test := range tests {
		s := New(Options{Supervisor: &fake{status: test.status}})
		w := get(s, "GET", test.target)
		if w.Code != test.code || w.Body.String() != test.body {
			t.Errorf("%s with %+v: %d\n%swant %d\n%s", test.target, test.status, w.Code, w.Body, test.code, test.body)
		}
		if !strings.Contains(test.target, "?") && strings.HasPrefix(test.target, "/readyz") && test.status.Ready != (w.Code == 200) {
			t.Errorf("%s does not agree with %+v", test.target, test.status)
		}
		for _, path := range []string{"/livez", "/healthz"} {
			if w := get(s, "GET", path); w.Code != 200 {
				t.Errorf("%s fails on account of the app: %+v", path, test.status)
			}
		}
	}
}

func TestOtherPaths(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page\n") })
	with := New(Options{Supervisor: &fake{status: ready}, Metrics: metrics})
	without := New(Options{Supervisor: &fake{status: ready}})
	tests := []struct {
		server         *Server
		method, target string
		code           int
		body           string
	}{
		{with, "GET", "/metrics", 200, "page\n"},
		{without, "GET", "/metrics", 404, "there is nothing here: try /livez, /readyz, /startupz, /healthz, /version\n"},
		{with, "GET", "/", 404, "there is nothing here: try /livez, /readyz, /startupz, /healthz, /metrics, /version\n"},
		{with, "GET", "/readyz/", 404, "there is nothing here: try /livez, /readyz, /startupz, /healthz, /metrics, /version\n"},
		{with, "POST", "/readyz", 405, "there are only questions here: use GET\n"},
		{with, "DELETE", "/metrics", 405, "there are only questions here: use GET\n"},
		{with, "HEAD", "/readyz", 200, "ok\n"},
	}
	for _, test := range tests {
		w := get(test.server, test.method, test.target)
		if w.Code != test.code || w.Body.String() != test.body {
			t.Errorf("%s %s: %d %q, want %d %q", test.method, test.target, w.Code, w.Body, test.code, test.body)
		}
	}
}

func TestVersion(t *testing.T) {
	w := get(New(Options{Supervisor: &fake{}}), "GET", "/version")
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	for _, key := range []string{"version", "revision", "time", "modified", "go", "platform"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %s in %v", key, got)
		}
	}
}

func livez(s *Server) string {
	w := get(s, "GET", "/livez")
	return fmt.Sprint(w.Code, " ", w.Body)
}

// TestLivez: what counts is how long the loop has not ticked while crank itself ran.
func TestLivez(t *testing.T) {
	for stalled, want := range map[time.Duration]string{
		0:                                     "200 ok\n",
		30*time.Second - 1:                    "200 ok\n",
		30 * time.Second:                      "503 [-]loop failed: the supervisor's loop has not ticked for 30s\nlivez check failed\n",
		61*time.Second + 100*time.Millisecond: "503 [-]loop failed: the supervisor's loop has not ticked for 1m1s\nlivez check failed\n",
	} {
		if got := livez(New(Options{Supervisor: &fake{status: ready, stalled: stalled}})); got != want {
			t.Errorf("after %v: %s", stalled, got)
		}
	}
}
