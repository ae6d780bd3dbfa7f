package saved

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/root"
)

// full is a record that uses every field.
var full = Record{
	Base: []string{"/app", "--v1"},
	Command: supervisor.Command{
		Argv:  []string{"/app", "--v2", "<&> ü \u2028"},
		Dir:   "/srv",
		Env:   []string{"COLOUR=blue", "EMPTY=", "DEBUG-"},
		Start: 30 * time.Second,
		Stop:  90 * time.Second,
	},
	Previous: &supervisor.Command{Argv: []string{"/app", "--v1"}, Stop: time.Millisecond},
}

func TestLoad(t *testing.T) {
	simple := Record{Command: supervisor.Command{Argv: []string{"/app"}}}
	tests := []struct {
		name, content string
		want          Record
		err           error
	}{
		{name: "all fields", want: full, content: `{
			"crank": "saved command", "version": 1, "base": ["/app", "--v1"],
			"command": ["/app", "--v2", "<&> ü \u2028"], "cwd": "/srv",
			"env": ["COLOUR=blue", "EMPTY=", "DEBUG-"], "start": "30s", "stop": "1m30s",
			"previous": {"command": ["/app", "--v1"], "stop": "1ms"}}`},
		{name: "unknown fields", want: simple, content: `{"crank": "saved command", "version": 1, "command": ["/app"], "colour": "blue"}`},
		{name: "nanoseconds", content: `{"crank": "saved command", "version": 1, "command": ["/app"], "start": 5000000000}`,
			want: Record{Command: supervisor.Command{Argv: []string{"/app"}, Start: 5 * time.Second}}},

		{name: "2014", content: `{"cwd":"","command":["./server.rb","-x"],"start_timeout":5000000000,"stop_timeout":0}` + "\n",
			want: Record{Command: supervisor.Command{Argv: []string{"./server.rb", "-x"}, Start: 5 * time.Second}}},
		{name: "2014, a string", content: `{"command":"/app","args":["a","b"],"start_timeout":1000000000,"stop_timeout":2000000000}`,
			want: Record{Command: supervisor.Command{Argv: []string{"/app", "a", "b"}, Start: time.Second, Stop: 2 * time.Second}}},
		{name: "2014, null args", want: simple, content: `{"command":"/app","args":null}`},
		{name: "before the mark", content: `{"version": 1, "base": ["/app"], "command": ["/app", "b"], "stop": "3s"}`,
			want: Record{Base: []string{"/app"}, Command: supervisor.Command{Argv: []string{"/app", "b"}, Stop: 3 * time.Second}}},
		{name: "formatted anew", want: simple, content: "\t{\"crank\" : \n\"saved command\",\"command\":[\"/app\"]}"},

		{name: "empty", content: "", err: ErrForeign},
		{name: "null", content: "null", err: ErrForeign},
		{name: "a list", content: `["crank", "saved command"]`, err: ErrForeign},
		{name: "YAML", content: "command: [/app]\n", err: ErrForeign},
		{name: "cut within the mark", content: `{"crank": "saved com`, err: ErrForeign},
		{name: "the mark does not come first", content: `{"version": 1, "crank": "saved command", "command": ["/app"]}`, err: ErrForeign},
		{name: "another mark", content: `{"crank": true, "command": ["/app"]}`, err: ErrForeign},
		{name: "the mark alone", content: `{"crank": "saved command"`, err: ErrCorrupt},
		{name: "version 1 without a mark or a base", content: `{"version": 1, "command": ["/app"]}`, err: ErrForeign},
		{name: "version 1 without a mark, other fields", content: `{"version": 1, "base": [], "command": ["/app"], "port": 1}`, err: ErrForeign},
		{name: "2014, other fields", content: `{"command": ["/app"], "port": 8080}`, err: ErrForeign},
		{name: "2014, another case", content: `{"Command": ["/app"]}`, err: ErrForeign},
		{name: "2014, a text without args", content: `{"command": "npm start"}`, err: ErrForeign},
		{name: "2014, an object", content: `{"command": {"run": "/app"}, "args": []}`, err: ErrForeign},
		{name: "2014, numbers", content: `{"command": [1, 2]}`, err: ErrForeign},
		{name: "2014, no command", content: `{"command": [], "args": null}`, err: ErrForeign},
		{name: "2014, command is null", content: `{"command": null, "cwd": "/"}`, err: ErrForeign},
		{name: "2014, times in words", content: `{"command": ["/app"], "start_timeout": "10s"}`, err: ErrForeign},
		{name: "2014, cut", content: `{"command": ["/app"], "start_timeout": 1`, err: ErrForeign},
		{name: "large, without a mark", content: `{"command": ["` + strings.Repeat("x", MaxSize) + `"]}`, err: ErrForeign},
		{name: "cut", content: `{"crank": "saved command", "version": 1, "command": ["/app"`, err: ErrCorrupt},
		{name: "garbage behind", content: `{"crank": "saved command", "version": 1, "command": ["/app"]}{}`, err: ErrCorrupt},
		{name: "newer", content: `{"crank": "saved command", "version": 2, "command": ["/app"]}`, err: ErrCorrupt},
		{name: "negative version", content: `{"crank": "saved command", "version": -1, "command": ["/app"]}`, err: ErrCorrupt},
		{name: "no command", content: `{"crank": "saved command", "version": 1}`, err: ErrCorrupt},
		{name: "empty command", content: `{"crank": "saved command", "version": 1, "command": [""]}`, err: ErrCorrupt},
		{name: "args alone", content: `{"args": ["/app"], "command": []}`, want: simple},
		{name: "NUL", content: `{"crank": "saved command", "version": 1, "command": ["/app\u0000"]}`, err: ErrCorrupt},
		{name: "bad time", content: `{"crank": "saved command", "version": 1, "command": ["/app"], "start": "soon"}`, err: ErrCorrupt},
		{name: "negative time", content: `{"crank": "saved command", "version": 1, "command": ["/app"], "start": "-1s"}`, err: ErrCorrupt},
		{name: "bad env", content: `{"crank": "saved command", "version": 1, "command": ["/app"], "env": ["COLOUR"]}`, err: ErrCorrupt},
		{name: "env without a name", content: `{"crank": "saved command", "version": 1, "command": ["/app"], "env": ["=x"]}`, err: ErrCorrupt},
		{name: "bad previous", content: `{"crank": "saved command", "version": 1, "command": ["/app"], "previous": {}}`, err: ErrCorrupt},
		{name: "too large", content: `{"crank": "saved command", "version": 1, "command": ["` + strings.Repeat("x", MaxSize) + `"]}`, err: ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.conf")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Load(path)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadUnsafe(t *testing.T) {
	const content = `{"crank": "saved command", "version": 1, "command": ["/app"]}`
	good := func(t *testing.T, path string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			good(t, path)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		err  error
	}{
		{"own", good, nil},
		{"readable by all", chmod(0o644), nil},
		{"missing", func(*testing.T, string) {}, fs.ErrNotExist},
		{"writable by group", chmod(0o660), ErrUnsafe},
		{"writable by others", chmod(0o602), ErrUnsafe},
		{"symlink", func(t *testing.T, path string) {
			good(t, path+".real")
			must(t, os.Symlink(path+".real", path))
		}, ErrForeign},
		{"hard link", func(t *testing.T, path string) {
			good(t, path+".real")
			must(t, os.Link(path+".real", path))
		}, ErrUnsafe},
		{"dangling symlink", func(t *testing.T, path string) { must(t, os.Symlink("nowhere", path)) }, ErrForeign},
		{"directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, ErrForeign},
		{"fifo", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, ErrForeign},
		{"socket", func(t *testing.T, path string) {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
			must(t, err)
			defer syscall.Close(fd)
			must(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}))
		}, ErrForeign},
		{"unreadable", func(t *testing.T, path string) {
			good(t, path)
			must(t, os.Chmod(path, 0))
			if os.Geteuid() == 0 {
				must(t, os.WriteFile(path, nil, 0)) // root can read everything
			}
		}, ErrForeign},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.conf")
			tt.make(t, path)
			before, _ := os.Lstat(path)
			if _, err := Load(path); !errors.Is(err, tt.err) {
				t.Errorf("error is %v, want %v", err, tt.err)
			}
			if after, _ := os.Lstat(path); !cmp.Equal(before == nil, after == nil) {
				t.Error("Load has changed the file")
			}
		})
	}
}

// A file of another user is refused, but one of root is not: only root can make both.
func TestLoadOwner(t *testing.T) {
	const other = 12345
	tests := []struct {
		name       string
		owner, own int
		err        error
	}{
		{"of another", other, 0, ErrUnsafe},
		{"of root", 0, other, nil},
		{"of a third", other + 1, other, ErrUnsafe},
	}
	root.Need(t) // TestLoadUnsafe covers the rest
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := sharedDir(t)
			path := filepath.Join(dir, "web.conf")
			if err := os.WriteFile(path, []byte(`{"command": ["/app"]}`), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, tt.owner, -1); err != nil {
				t.Fatal(err)
			}
			want := "ok"
			if tt.err != nil {
				want = "unsafe"
			}
			if got := runHelper(t, helper{name: "load", path: path, uid: tt.own}); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.conf")
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, content := range []string{`{"crank": "saved command", first`, `{"crank": "saved command", second`} {
		write(path, content)
		aside, err := SetAside(path, Failed)
		if err != nil || aside != path+".failed" {
			t.Fatal(aside, err)
		}
		if got, _ := os.ReadFile(aside); string(got) != content {
			t.Errorf("it holds %q, want %q", got, content)
		}
	}
	if _, err := SetAside(path, Corrupt); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	// A foreign file at either name.
	write(path, "mine")
	if _, err := SetAside(path, Failed); !errors.Is(err, ErrForeign) {
		t.Errorf("error is %v", err)
	}
	write(path+".other", `{"crank": "saved command", third`)
	write(path+".other.failed", "mine")
	if _, err := SetAside(path+".other", Failed); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), ".other.failed") {
		t.Errorf("error is %v", err)
	}
	for name, want := range map[string]string{
		path: "mine", path + ".failed": `{"crank": "saved command", second`, path + ".other": `{"crank": "saved command", third`, path + ".other.failed": "mine",
	} {
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	if data, err := encode(full); err == nil {
		f.Add(data)
	}
	f.Add([]byte(`{"command":"/app","args":["a"],"start_timeout":1000000000,"stop_timeout":2}`))
	f.Add([]byte(`{"cwd":"","command":["./server.rb"],"start_timeout":5000000000}`))
	f.Add([]byte(`{"version":1,"command":["a"],"env":["A=","B-"],"stop":"1h0m0.5s","previous":{"command":["b"]}}`))
	f.Add([]byte(`{"version":2,"command":["a"]}`))
	f.Add([]byte(`{"version":1,"command":["\ud800"],"start":1e3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := parse(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v is not ErrCorrupt", err)
			}
			return
		}
		written, err := encode(rec)
		if err != nil {
			t.Fatalf("it was read, but cannot be written: %v", err)
		}
		again, err := parse(written)
		if err != nil {
			t.Fatalf("it was written, but cannot be read: %v", err)
		}
		if !equal(rec, again) {
			t.Fatalf("%+v became %+v", rec, again)
		}
	})
}

func equal(a, b Record) bool {
	if (a.Previous == nil) != (b.Previous == nil) || a.Previous != nil && !a.Previous.Equal(*b.Previous) {
		return false
	}
	return a.Command.Equal(b.Command) && strings.Join(a.Base, "\x00") == strings.Join(b.Base, "\x00")
}
