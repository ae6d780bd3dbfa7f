//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// asCrankctl runs the test binary as crankctl.
func asCrankctl(t *testing.T, env []string, args ...string) (code int, out string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append([]string{asMain + "=1", "PATH=" + os.Getenv("PATH")}, env...)
	if slices.Contains(env, "-PATH") {
		cmd.Env = []string{asMain + "=1"}
	}
	content, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(content)
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	for name, file := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"plain": {"text", 0o644}, "text": {"[ $LISTEN_PID = $$ ] && echo \"$1 by sh\"; exit 7", 0o755}, "empty": {"", 0o755},
		"foreign": {"\x7fELF", 0o755}, "crlf": {"#!/bin/sh\r\n", 0o755},
		"broken/cmd": {"#!/no/such/shell\n", 0o755}, "good/cmd": {"#!/bin/sh\necho good", 0o755}, "denied/cmd": {"", 0o644}, "dir/cmd/x": {"", 0o644},
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(file.content), file.mode), os.Chmod(path, file.mode)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(names ...string) []string {
		for i := range names {
			names[i] = filepath.Join(dir, names[i])
		}
		return []string{"PATH=" + strings.Join(names, ":")}
	}
	const script = `[ "$LISTEN_PID" = $$ ] && echo "mine: $LISTEN_FDS ${LISTEN_PIDFDID-none}" || echo "other: ${LISTEN_PID-none}"; exit 7`
	for _, test := range []struct {
		name string
		env  []string
		args []string
		code int
		says string
	}{
		{"with sockets", []string{"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_PIDFDID=9"}, []string{"--", "sh", "-c", script}, 7, "mine: 1 none"},
		{"with a watchdog", []string{"WATCHDOG_USEC=1", "WATCHDOG_PID=1"}, []string{"sh", "-c", `[ "$WATCHDOG_PID" = $$ ] && echo mine; exit 7`}, 7, "mine"},
		{"without", nil, []string{"sh", "-c", script}, 7, "other: none"},
		{"not found", nil, []string{"no-such-command"}, 127, "no-such-command"},
		{"no such file", nil, []string{dir + "/not"}, 127, "not"},
		{"no program", nil, []string{dir + "/plain"}, 126, "no execute permission"},
		{"a directory", nil, []string{dir}, 126, "directory"},
		{"text", []string{"LISTEN_FDS=1", "PATH=/bin"}, []string{dir + "/text", "x y"}, 7, "x y by sh"},
		{"text in PATH", append(in("text", ""), "LISTEN_FDS=1"), []string{"text", "x y"}, 7, "x y by sh"},
		{"an empty file", nil, []string{dir + "/empty"}, 0, ""},
		{"another machine's", nil, []string{dir + "/foreign"}, 126, "cannot execute " + dir + "/foreign: exec format error (neither a program"},
		{"CRLF", nil, []string{dir + "/crlf"}, 126, `its interpreter does not exist: "/bin/sh\r": save the script with LF line endings`},
		{"on after a missing interpreter", in("broken", "denied", "good"), []string{"cmd"}, 0, "good"},
		{"a missing interpreter", in("broken"), []string{"cmd"}, 126, "broken/cmd: its interpreter does not exist"},
		{"denied", in("broken", "denied", "nowhere"), []string{"cmd"}, 126, "denied/cmd: it has no execute permission"},
		{"a directory in PATH", in("dir"), []string{"cmd"}, 126, "dir/cmd: it is a directory"},
		{"not in PATH", in("nowhere"), []string{"cmd"}, 127, "cannot find cmd: file does not exist in PATH=" + dir + "/nowhere"},
		{"PATH not set", []string{"-PATH"}, []string{"sh", "-c", "exit 7"}, 7, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, out := asCrankctl(t, test.env, append([]string{"exec"}, test.args...)...)
			if code != test.code || !strings.Contains(out, test.says) {
				t.Errorf("exit %d, %q", code, out)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	fake := serve(t, place(t), "web")
	fake.Change(addLeaving)
	dir := t.TempDir()
	for name, content := range map[string]string{"good": "#!/bin/sh\n", "bad": "#! /no/such/shell -e\n", "binary": "\x7fELF", "text": "echo"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 1, "FAIL  command /app: "}, // the current one, which does not exist
		{[]string{"--", dir + "/good"}, 0, "ok    command " + dir + "/good can be executed"},
		{[]string{"-cwd", dir, "./good"}, 0, "ok    command " + dir + "/good"},
		{[]string{"./good"}, 0, "not known here"},
		{[]string{"good"}, 1, "in PATH"},
		{[]string{dir + "/bad", "x"}, 1, `its interpreter does not exist: "/no/such/shell" in its #! line`},
		{[]string{dir + "/text"}, 0, "text can be executed, by /bin/sh: it has no #! line"},
		{[]string{dir + "/binary"}, 0, "ok"},
	} {
		got := call([]string{"PATH=/nowhere"}, append([]string{"check"}, test.args...)...)
		if got.code != test.code || !strings.HasPrefix(got.stdout, "ok    crank web answers (pid 1, v1.2.3)\n") || !strings.Contains(got.stdout, test.says) {
			t.Errorf("%v: %+v", test.args, got)
		}
	}
}

func TestCompletion(t *testing.T) {
	script := call(nil, "completion", "bash").stdout
	complete := func(words ...string) string {
		cmd := exec.Command("bash", "-c", script+`
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _crankctl; echo "${COMPREPLY[*]}"`, "bash")
		cmd.Args = append(cmd.Args, words...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, test := range []struct {
		words []string
		want  string
	}{
		{[]string{"crankctl", "re"}, "reload restart ready"},
		{[]string{"crankctl", "-name", "run", "rol"}, "rollback"},
		{[]string{"crankctl", "restart", "-for"}, "-force"},
		{[]string{"crankctl", "ps", "-st"}, "-starting -stopping"},
		{[]string{"crankctl", "-no"}, "-no-color"},
		{[]string{"/bin/crankx", "web", "ab"}, "abort"},
		{[]string{"crankctl", "completion", "z"}, "zsh"},
	} {
		if got := complete(test.words...); got != test.want {
			t.Errorf("%v: %q, want %q", test.words, got, test.want)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		if got := call(nil, "completion", shell); got.code != 0 || !strings.Contains(got.stdout, "rollback") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}
