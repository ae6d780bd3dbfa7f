package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/demo/hammer"
)

// A server that answers everything: the report accounts for every request that it had.
func TestReport(t *testing.T) {
	var served struct{ all, slow atomic.Int64 }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.all.Add(1)
		if r.URL.Query().Get("delay") == "20ms" {
			served.slow.Add(1)
		}
		w.Write([]byte("v1\n"))
	}))
	defer server.Close()

	r, code := load(t, "-url", server.URL, "-for", "300ms", "-keepalive", "-slow", "20ms", "-rate", "100")
	if code != 0 || r.Lost != 0 || len(r.Errors) != 0 {
		t.Errorf("code %d, report %+v", code, r)
	}
	if n := int(served.all.Load()); r.Requests != n || r.Answers["v1"] != n {
		t.Errorf("the server had %d requests, the report is %+v", n, r)
	}
	if n := int(served.slow.Load()); n == 0 || r.Slow != n {
		t.Errorf("the server had %d slow requests, the report is %+v", n, r)
	}
	if r.Connections >= r.Requests || r.Longest <= 0 || r.Seconds < 0.3 {
		t.Errorf("report %+v", r)
	}
}

// Each way to lose a request is counted, by every kind of client.
func TestLost(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	tests := []struct {
		name    string
		kind    hammer.Kind
		handler http.HandlerFunc
	}{
		{name: "refused", kind: "refused"},
		{name: "status", kind: "status", handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }},
		{name: "cut short", kind: "EOF", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("short"))
		}},
		{name: "too late", kind: "timeout", handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address := closed.URL
			if tt.handler != nil {
				server := httptest.NewServer(tt.handler)
				defer server.Close()
				address = server.URL
			}
			r, code := load(t, "-url", address, "-for", "100ms", "-clients", "1", "-timeout", "200ms")
			if code != 1 || r.Requests < 2 || r.Lost != r.Requests || len(r.Errors) == 0 {
				t.Errorf("code %d, report %+v", code, r)
			}
			if len(r.Kinds) != 1 || r.Kinds[tt.kind] != r.Lost {
				t.Errorf("kinds %v, want %s alone", r.Kinds, tt.kind)
			}
		})
	}
}

// It says when it runs, and TERM is a normal end.
func TestUntilTerm(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	defer server.Close()
	var stdout bytes.Buffer
	if code := run([]string{"-url", server.URL}, &stdout, killer{}); code != 0 {
		t.Errorf("code %d, report %s", code, stdout.String())
	}
}

// killer ends the load once it says that it runs.
type killer struct{}

func (killer) Write(p []byte) (int, error) {
	if string(p) == "load: running\n" {
		return len(p), syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
	return len(p), nil
}

func TestGet(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hello" {
			w.WriteHeader(404)
		}
		w.Write([]byte("body"))
	}))
	defer server.Close()
	for path, want := range map[string]int{"/hello": 0, "/other": 1} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-get", server.URL + path}, &stdout, &stderr); code != want || stdout.String() != "body" || !strings.HasPrefix(stderr.String(), "load: asked\n") {
			t.Errorf("%s: code %d, stdout %q, stderr %q", path, code, stdout.String(), stderr.String())
		}
	}
}

func TestUsage(t *testing.T) {
	tests := []struct{ args, want string }{
		{args: "", want: "-url"},
		{args: "-url localhost:80", want: "http://HOST:PORT"},
		{args: "-url http://localhost/path", want: "http://HOST:PORT"},
		{args: "-colour", want: "colour"},
	}
	for _, tt := range tests {
		var stderr strings.Builder
		if code := run(strings.Fields(tt.args), &stderr, &stderr); code != 2 || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%q: code %d, stderr %q", tt.args, code, stderr.String())
		}
	}
}

func TestAddress(t *testing.T) {
	for url, want := range map[string]string{
		"http://127.0.0.1:8080":  "127.0.0.1:8080",
		"http://web/":            "web:80",
		"http://[::1]":           net.JoinHostPort("::1", "80"),
		"http://[::1]:8080":      "[::1]:8080",
		"http://web.default:808": "web.default:808",
	} {
		if got, err := (options{url: url}).address(); got != want || err != nil {
			t.Errorf("%s: %q, %v", url, got, err)
		}
	}
}

func load(t *testing.T, args ...string) (r report, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(args, &stdout, &stderr)
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("code %d, stdout %q, stderr %q: %v", code, stdout.String(), stderr.String(), err)
	}
	return r, code
}
