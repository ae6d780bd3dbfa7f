//go:build linux

package main

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

// escapes would set the title of a terminal, move its cursor, and turn the direction of writing.
const escapes = "\x1b]0;owned\a\x1b[2J\r\u009b1m\u202e\U000e0001\n"

// hostile returns a T of which every text holds escapes, and every list one element.
func hostile[T any]() T {
	var v T
	fill(reflect.ValueOf(&v).Elem())
	return v
}

func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Now()))
	case v.Kind() == reflect.String:
		v.SetString("x" + escapes)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x" + escapes: escapes}))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}

// Whoever has taken over the app can, as the same user, serve the control socket in crank's place. The terminal of an operator
// outside of the container is another matter.
func TestHostileServer(t *testing.T) {
	dir := place(t)
	l, err := net.Listen("unix", filepath.Join(dir, "web.ctl"))
	if err != nil {
		t.Fatal(err)
	}
	failed := false
	kinds := []string{
		"checking", "started", "ready", "settled", "promoted", "failed", "stopping", "killed", "exited", "status", "requested",
		"refused", "backoff", "shutdown", "signal", "reloading", "reloaded", "overdue", "missed", "alive", "mainpid", escapes,
	}
	mux := http.NewServeMux()
	answer := func(path string, lines func() []any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(control.HeaderName, "web\u202e\u009b" /* net/http refuses the others */)
			if failed {
				w.WriteHeader(http.StatusConflict)
				json.NewEncoder(w).Encode(hostile[control.Error]())
				return
			}
			for _, line := range lines() {
				json.NewEncoder(w).Encode(line)
			}
		})
	}
	one := func(v any) func() []any { return func() []any { return []any{v} } }
	stream := func(last control.Progress) func() []any {
		return func() (all []any) {
			for i, kind := range kinds {
				event := hostile[control.Event]()
				event.Kind, event.Generation = kind, i%2
				all = append(all, control.Progress{Event: &event})
			}
			return append(all, last)
		}
	}
	result, failure := hostile[control.Result](), hostile[control.Error]()
	success := result
	success.OK, success.From = true, 1
	answer(control.PathInfo, one(hostile[control.Info]()))
	answer(control.PathStatus, one(hostile[control.Status]()))
	answer(control.PathReady, one(hostile[control.Ready]()))
	answer(control.PathPS, one([]control.Generation{hostile[control.Generation]()}))
	answer(control.PathKill, one(hostile[control.KillResult]()))
	answer(control.PathAbort, one(hostile[control.Result]()))
	answer(control.PathRun, stream(control.Progress{Result: &result, Error: &failure}))
	answer(control.PathRollback, stream(control.Progress{Result: &success}))
	answer(control.PathReload, stream(control.Progress{Result: &success}))
	answer(control.PathWait, stream(control.Progress{Result: &success}))
	answer(control.PathEvents, stream(control.Progress{Result: &success}))
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	for _, failed = range []bool{false, true} {
		for _, line := range []string{
			"info", "status", "ps", "ps -o wide", "ready", "kill -ready", "kill -wait -ready", "abort", "run -wait app", "run app", "reload",
			"rollback", "wait -ready", "wait -idle", "events", "events -o wide", "check", "-name web* ps", "-name web* status",
			"info -o json", "status -o json", "ps -o json", "run -wait -o json app", "events -o json", "kill -ready -o json",
		} {
			got := call(nil, strings.Fields(line)...)
			for _, text := range []string{got.stdout, got.stderr} {
				if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && clean(string(r)) != string(r) }); i >= 0 {
					t.Errorf("crankctl %s prints %q", line, text[i:min(len(text), i+20)])
				}
			}
			if got.stdout+got.stderr == "" {
				t.Errorf("crankctl %s prints nothing", line)
			}
		}
	}
}

func TestEscaped(t *testing.T) {
	in := map[string]string{"a\u009b\u202e\U000e0001": "é \u00a0 <&> \x7f \x00"}
	content, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	text := escaped(string(content))
	var out map[string]string
	if err := json.Unmarshal([]byte(text), &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("%s: %q, %v", text, out, err)
	}
	if clean(text) != text || !strings.Contains(text, "é") {
		t.Errorf("%q", text)
	}
}
