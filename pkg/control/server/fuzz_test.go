package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/control/server/servertest"
	"github.com/crankctl/crank/pkg/supervisor"
)

// recorder is an answer in memory, which has the deadlines of a real one.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// FuzzRequest sends any request to the real handler, as crank's own user: it never panics, answers JSON, says why
// not where it refuses, and what reaches the supervisor can be carried out.
func FuzzRequest(f *testing.F) {
	for _, r := range routes {
		f.Add(r.method, r.path, []byte("{}"), false)
		f.Add(r.method, r.path, []byte(nil), true)
	}
	for _, body := range []string{
		`{"command":["/app","--v2"],"cwd":"/srv","env":["A=b","C-"],"start":"1m30s","stop":"10","wait":true}`,
		`{"command":[""]}`, `{"command":["a\u0000"]}`, `{"env":["=x"]}`, `{"env":["A"]}`, `{"start":"-1"}`, `{"start":"1e300"}`, `{"cwd":"tmp"}`,
		`{"pid":1,"generation":0,"force":true}`, `{"pid":-1}`, `{"command":"x"}`, `{}{}`, `[]`, `null`, `{"commandd":1}`, strings.Repeat("[", 20000),
	} {
		f.Add("POST", control.PathRun, []byte(body), false)
	}
	for _, body := range []string{
		`{"states":["ready"],"signal":"TERM"}`, `{"pid":42,"signal":"9","wait":true}`, `{"pid":0,"signal":"HUP"}`, `{"states":["x"],"signal":"1"}`,
		`{"states":[],"signal":"RTMIN+1"}`, `{"pid":42,"signal":"SIGSIG"}`,
	} {
		f.Add("POST", control.PathKill, []byte(body), false)
	}
	for _, target := range []string{
		"/v1/ps?state=ready,stopping&pid=42", "/v1/ps?state=&pid=x", "/v1/ps?pid=-1", "/v1/wait?for=ready", "/v1/wait?for=generation&generation=99",
		"/v1/wait?for=idle&for=ready", "/v1/events?follow=true&since=99999999999999999999", "/v1/events?since=3", "/v1/status?x", "/v1/../v1/run", "/", "*",
		"/v1/info?%zz", "http://x/v1/ready",
	} {
		f.Add("GET", target, []byte(nil), false)
	}
	f.Fuzz(func(t *testing.T, method, target string, body []byte, readOnly bool) {
		request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: crank\r\n\r\n")))
		if err != nil {
			return // net/http answers it
		}
		fake := newFuzzed(t, request, readOnly)
		s := New(Options{Supervisor: fake, ReadOnly: readOnly, Observe: func(verb, result string) {
			if !slices.Contains(Verbs(), verb) || !slices.Contains(Results, result) {
				t.Errorf("observed %q %q", verb, result)
			}
		}})
		// A stream ends with its client: this one has gone when the answer begins.
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), connKey{}, &conn{asker: supervisor.Asker{UID: geteuid(), PID: 1, Name: "fuzz"}}))
		cancel()
		request = request.WithContext(ctx)
		request.Body = io.NopCloser(bytes.NewReader(body))
		w := recorder{httptest.NewRecorder()}
		s.ServeHTTP(w, request)
		checkAnswer(t, w.Code, w.Body.Bytes())
	})
}

// newFuzzed returns a supervisor that carries out everything, and looks at what it is asked to do.
func newFuzzed(t *testing.T, request *http.Request, readOnly bool) *servertest.Fake {
	fake := servertest.New("web")
	changes := func() {
		if readOnly || request.Method != http.MethodPost {
			t.Errorf("%s %s changes something", request.Method, request.URL)
		}
	}
	fake.OnSwap = func(r supervisor.Request) (supervisor.Ticket, error) {
		changes()
		for _, text := range append(append([]string{r.Change.Dir}, r.Change.Argv...), r.Change.Env...) {
			if strings.ContainsRune(text, 0) {
				t.Errorf("%q cannot be executed with", text)
			}
		}
		if len(r.Change.Argv) > 0 && r.Change.Argv[0] == "" || r.Change.Dir != "" && !filepath.IsAbs(r.Change.Dir) ||
			slices.ContainsFunc(r.Change.Env, supervisor.NoEnvChange) || r.Change.Start < 0 || r.Change.Stop < 0 {
			t.Errorf("%+v was let through", r.Change)
		}
		done := make(chan supervisor.Outcome, 1)
		done <- supervisor.Outcome{OK: true, Trigger: r.Trigger, Generation: 4, PID: 43, Current: 4, CurrentPID: 43}
		return supervisor.Ticket{ID: 1, Generation: 4, PID: 43, Done: done}, nil
	}
	fake.OnKill = func(k supervisor.KillRequest) ([]supervisor.GenerationStatus, error) {
		changes()
		if k.Signal < 1 || k.Signal > 64 || k.PID < 0 || k.PID == 0 && len(k.States) == 0 {
			t.Errorf("%+v was let through", k)
		}
		return fake.Status().Generations, nil
	}
	fake.OnAbort = func(supervisor.Asker) (int, error) { changes(); return 4, nil }
	return fake
}

// checkAnswer reads an answer as a client would: a value, or lines of which the last one is the result or an error.
func checkAnswer(t *testing.T, status int, body []byte) {
	t.Helper()
	if len(body) == 0 && status == http.StatusOK {
		return // a stream whose client had gone
	}
	for line := range bytes.Lines(body) {
		if !json.Valid(line) {
			t.Errorf("%d: %q is no JSON", status, line)
		}
	}
	if status == http.StatusOK || status == http.StatusServiceUnavailable {
		return
	}
	var wire control.Error
	if err := json.Unmarshal(body, &wire); err != nil || wire.Code == "" || wire.Message == "" || !slices.Contains([]int{400, 404, 405, 409, 413, 500}, status) {
		t.Error(fmt.Sprintf("%d: %q does not say why, ", status, body), err)
	}
}
