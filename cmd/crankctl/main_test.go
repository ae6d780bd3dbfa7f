// The server that these tests need builds for Linux alone.

//go:build linux

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/control/server"
	"github.com/crankctl/crank/pkg/control/server/servertest"
	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/leak"
)

var update = flag.Bool("update", false, "write the golden files")

// asMain makes the test binary crankctl itself, for what ends or replaces the process.
const asMain = "TEST_AS_CRANKCTL"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr))
	}
	// What the tester's own environment says about a crank is not meant.
	for _, name := range []string{"CRANK_CTL", "CRANK_NAME", "CRANK_PREFIX", "XDG_RUNTIME_DIR"} {
		os.Unsetenv(name)
	}
	os.Exit(leak.Main(m))
}

// place is a runtime directory that crankctl finds by itself.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl") // shorter than t.TempDir, for sun_path
	if err != nil {
		t.Fatal(err)
	}
	old, oldOthers := candidates, others
	candidates, others = func() []string { return []string{filepath.Join(dir, "none"), dir} }, func() []string { return nil }
	t.Cleanup(func() { candidates, others = old, oldOthers; os.RemoveAll(dir) })
	return dir
}

// serve starts a crank without processes in dir.
func serve(t *testing.T, dir, name string) *servertest.Fake {
	t.Helper()
	fake := servertest.New(name)
	l, err := server.Listen(filepath.Join(dir, name+".ctl"), "")
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Options{Supervisor: fake, Info: func() control.Info {
		return control.Info{
			Name: name, PID: 1, Version: "v1.2.3", Go: "go1.26.0", Started: time.Now().Add(-2*time.Hour - 3*time.Minute),
			Prefix: "/run/crank", Conf: "/run/crank/web.conf", Ctl: "/run/crank/web.ctl",
			Sockets:  []control.Socket{{Name: "http", FD: 3, Address: "http=tcp://:8080", Bound: "tcp://[::]:8080"}},
			Settings: map[string]string{"stop": "20s", "bind": "http=:8080"},
		}
	}})
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return fake
}

type output struct {
	code           int
	stdout, stderr string
}

func call(env []string, args ...string) output {
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"crankctl"}, args...), env, &stdout, &stderr)
	return output{code, stdout.String(), stderr.String()}
}

func crankx(args ...string) output {
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"/usr/bin/crankx"}, args...), nil, &stdout, &stderr)
	return output{code, stdout.String(), stderr.String()}
}

func check(t *testing.T, got, want output) {
	t.Helper()
	if got.code != want.code {
		t.Errorf("exit %d, want %d", got.code, want.code)
	}
	if diff := cmp.Diff(want.stdout, got.stdout); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.stderr, got.stderr); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	serve(t, place(t), "web")
	for _, test := range []struct {
		args []string
		says string
	}{
		{nil, "no verb"},
		{[]string{"reolad"}, "did you mean reload?"},
		{[]string{"help", "sttus"}, "did you mean status?"},
		{[]string{"-nam", "x", "ps"}, "did you mean -name?"},
		{[]string{"ps", "-redy"}, "did you mean -ready?"},
		{[]string{"ps", "3"}, `unexpected argument "3"`},
		{[]string{"ps", "-o", "yaml"}, "table, wide or json"},
		{[]string{"ps", "-pid", "x"}, "-pid"},
		{[]string{"-timeout", "soon", "ps"}, "-timeout"},
		{[]string{"-name", "../etc/web", "ps"}, "-name"},
		{[]string{"-name", "[", "ps"}, "pattern"},
		{[]string{"run", "-start", "-1"}, "-start"},
		{[]string{"run", "-stop", "soon"}, "-stop"},
		{[]string{"run", "-env", "NOT_SET_HERE"}, "NOT_SET_HERE"},
		{[]string{"run", "-env", "=x"}, "-env"},
		{[]string{"kill"}, "selector"},
		{[]string{"kill", "-signal", "TERMINATE", "-pid", "1"}, "TERMINATE"},
		{[]string{"wait", "-ready", "-idle"}, "exclude"},
		{[]string{"wait", "-generation", "0"}, "-generation"},
		{[]string{"notify"}, "K=V"},
		{[]string{"notify", "READY"}, "K=V"},
		{[]string{"exec"}, "command"},
		{[]string{"completion"}, "bash"},
		{[]string{"completion", "tcsh"}, "bash"},
	} {
		got := call(nil, test.args...)
		if got.code != exitUsage || !strings.Contains(got.stderr, test.says) || got.stdout != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q, want %q", test.args, got.code, got.stdout, got.stderr, test.says)
		}
	}
}

func TestHelp(t *testing.T) {
	var all bytes.Buffer
	for _, args := range [][]string{{"help"}, {"-help"}, {"--help"}} {
		got := call(nil, args...)
		if got.code != 0 || got.stderr != "" || got.stdout == "" {
			t.Errorf("%q: %+v", args, got)
		}
		all.Reset()
		all.WriteString(got.stdout)
	}
	for _, c := range commands {
		byHelp, byFlag := call(nil, "help", c.name), call(nil, c.name, "-h")
		if byHelp != byFlag || byHelp.code != 0 {
			t.Errorf("help %s and %s -h differ: %+v", c.name, c.name, byFlag)
		}
		if len(c.examples) == 0 {
			t.Errorf("%s has no example", c.name)
		}
		all.WriteString("\n---\n\n" + byHelp.stdout)
	}
	golden(t, "testdata/help.golden", all.Bytes())
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: go test ./cmd/crankctl -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date, go test ./cmd/crankctl -update writes it (-file +now):\n%s", path, diff)
	}
}

// The examples are read by people who copy them: their flags must exist.
func TestExamplesParse(t *testing.T) {
	for _, c := range commands {
		for _, example := range c.examples {
			words := strings.Fields(strings.Trim(example, "'"))
			if words[0] != "crankctl" || words[1] != c.name {
				continue
			}
			fs := newFlags(c.name)
			c.setup(fs)
			s := newSession(nil, nil, nil)
			s.global.declare(fs)
			if err := fs.Parse(words[2:]); err != nil {
				t.Errorf("%s: %v", example, err)
			}
		}
	}
}

func TestWhichCrank(t *testing.T) {
	dir := place(t)
	other, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(other)
	if got := call(nil, "status"); got.code != exitUnreachable || !strings.Contains(got.stderr, dir) || !strings.Contains(got.stderr, "none") {
		t.Errorf("no crank: %+v", got)
	}
	serve(t, dir, "web")
	dead, err := server.Listen(filepath.Join(dir, "dead.ctl"), "")
	if err != nil {
		t.Fatal(err)
	}
	dead.Listener.Close() // the path stays
	serve(t, other, "far")

	far := filepath.Join(other, "far.ctl")
	for _, test := range []struct {
		name string
		env  []string
		args []string
		want string // the beginning of what status says
		code int
	}{
		{"the only live one", nil, nil, "web:", 0},
		{"by name", nil, []string{"-name", "web"}, "web:", 0},
		{"by name after the verb", nil, []string{"status", "-name=web"}, "web:", 0},
		{"by prefix", nil, []string{"-prefix", other}, "far:", 0},
		{"by prefix and name", nil, []string{"-prefix", other, "--name", "far"}, "far:", 0},
		{"by ctl", nil, []string{"-ctl", far}, "far:", 0},
		{"by variable", []string{"CRANK_CTL=" + far}, nil, "far:", 0},
		{"by variables", []string{"CRANK_PREFIX=" + other, "CRANK_NAME=far"}, nil, "far:", 0},
		{"an empty variable is none", []string{"CRANK_CTL=", "CRANK_NAME="}, nil, "web:", 0},
		{"a flag beats a variable", []string{"CRANK_CTL=" + far}, []string{"-name", "web"}, "web:", 0},
		{"a dead one", nil, []string{"-name", "dead"}, "", exitUnreachable},
		{"none of that name", nil, []string{"-name", "nobody"}, "", exitUnreachable},
		{"none of that pattern", nil, []string{"-name", "x*"}, "", exitUnreachable},
		{"a socket that is not there", nil, []string{"-ctl", dir + "/not.ctl"}, "", exitUnreachable},
		{"switched off", []string{"CRANK_CTL=off"}, nil, "", exitUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			if len(args) == 0 || args[0] != "status" {
				args = append(args, "status")
			}
			got := call(test.env, args...)
			if got.code != test.code || !strings.HasPrefix(got.stdout, test.want) {
				t.Errorf("%+v", got)
			}
		})
	}
	serve(t, dir, "api")
	got := call(nil, "status")
	if got.code != exitUsage || !strings.Contains(got.stderr, "api.ctl, ") || !strings.Contains(got.stderr, "web.ctl") {
		t.Errorf("several cranks: %+v", got)
	}
}

func TestSeveralCranks(t *testing.T) {
	dir := place(t)
	asked := []string{}
	for _, name := range []string{"web-2", "web-1", "api", "web-3"} {
		fake := serve(t, dir, name)
		fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) {
			asked = append(asked, name)
			swap := fake.Accept(4, 57)
			swap.End(supervisor.Outcome{OK: name != "web-2", From: 3, Generation: 4, Current: 3, CurrentPID: 42, Took: time.Second})
			return swap.Ticket, nil
		}
	}
	check(t, crankx("web-*", "reload"), output{1, "swapped web-1 3 -> 4 in 1.0s\n", "error: swap failed, generation 3 (pid 42) still serving\n"})
	check(t, call(nil, "-name", "web-[13]", "reload"), output{0, "swapped web-1 3 -> 4 in 1.0s\nswapped web-3 3 -> 4 in 1.0s\n", ""})
	check(t, crankx("-q", "api", "reload"), output{0, "", ""})
	if got := strings.Join(asked, " "); got != "web-1 web-2 web-1 web-3 api" {
		t.Errorf("asked %s", got)
	}
	if got := crankx("web-?", "ps"); !strings.HasPrefix(got.stdout, "web-1:\nGEN") || !strings.Contains(got.stdout, "\nweb-2:\nGEN") {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{}, {"web-*"}} {
		if got := crankx(args...); got.code != exitUsage {
			t.Errorf("crankx %v: %+v", args, got)
		}
	}
}

func TestTimeout(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(func(s *supervisor.Status) { s.Ready = false })
	fake.OnSwap = func(supervisor.Request) (supervisor.Ticket, error) { return fake.Accept(4, 57).Ticket, nil }
	for _, args := range [][]string{{"wait"}, {"reload"}, {"events", "-f"}} {
		got := call(nil, append(args, "-timeout", "0.5")...)
		if got.code != exitTimeout || !strings.Contains(got.stderr, "gave up after 500ms (-timeout); what web has accepted goes on") {
			t.Errorf("%v: %+v", args, got)
		}
		for _, name := range []string{"web", "w*"} { // it ends before a crank is found
			got := call(nil, append(args, "-name", name, "-timeout", "1ns")...)
			if got.code != exitTimeout || !strings.Contains(got.stderr, "gave up after 1ns (-timeout), before a crank has answered") {
				t.Errorf("%v: %+v", args, got)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	serve(t, place(t), "web")
	for _, verb := range []string{"run", "reload", "swap", "restart", "rollback"} {
		check(t, call(nil, verb), output{exitRefused, "", "error: generation 4 is starting, crankctl (uid 0, pid 9) asked for it: wait, or use -force\n"})
	}
	check(t, call(nil, "abort"), output{exitRefused, "", "error: nothing is starting\n"})
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ps", "ps", 0}, {"rnu", "run", 2}, {"sttus", "status", 1}, {"kitten", "sitting", 3}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d", test.a, test.b, got)
		}
	}
}

// TestUsageComesFirst: what is wrong with the words is said whether a crank runs or not.
func TestUsageComesFirst(t *testing.T) {
	for _, c := range commands {
		if c.args != "" || c.local {
			continue
		}
		var stdout, stderr strings.Builder
		code := run([]string{"crankctl", "-ctl", "/no/such/socket", c.name, "extra"}, nil, &stdout, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), `unexpected argument "extra"`) {
			t.Errorf("%s: exit code %d, %s", c.name, code, stderr.String())
		}
	}
}
