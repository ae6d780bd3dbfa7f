package proc

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/root"
)

// TestSearch: the program is looked up as by execvp(3).
func TestSearch(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/good", "#!/bin/sh\necho $0\n", 0o755)
	write("bin/plain", "#!/bin/sh\n", 0o644)
	write("bin/broken", "#!/no/such/interpreter\n", 0o755)
	write("data/good", "hello\x00", 0o755)
	write("dirs/good/file", "", 0o644)
	write("plain/good", "", 0o644)
	write("broken/good", "#!/no/such/interpreter\n", 0o755)
	write("text/good", "echo $0 by sh\n", 0o755)
	write("-dash/good", "echo $0 by sh\n", 0o755)
	write("file", "", 0o644)
	in := func(names ...string) string {
		for i := range names {
			names[i] = filepath.Join(dir, names[i])
		}
		return strings.Join(names, ":")
	}
	for _, c := range []struct {
		name, dir, path string
		want            string // what the script prints, or the error
		code            int
	}{
		{"good", "", "/nowhere:" + in("bin"), in("bin/good"), 0},
		{"good", dir, "bin", "bin/good", 0},
		{"good", dir, "bin/", "bin/good", 0},
		{"good", in("bin"), "/nowhere:", "./good", 0},
		{"good", in("bin"), ":/nowhere", "./good", 0},
		{"good", in("bin"), "", "./good", 0}, // execvp(3) searches the working directory for an empty PATH
		{"./bin/good", dir, "", "./bin/good", 0},
		{"good", "", in("dirs", "plain", "broken", "file", "bin"), in("bin/good"), 0},
		{"good", "", in("broken", "text", "bin"), in("text/good") + " by sh", 0},
		{"good", dir, "text", "text/good by sh", 0},
		{"good", dir, "-dash", "./-dash/good by sh", 0},
		{"-dash/good", dir, "", "./-dash/good by sh", 0},
		{"good", "", in("data", "bin"), "cannot execute " + in("data/good") + ": exec format error", 126},
		{"good", "", in("broken", "plain", "nowhere"), "cannot execute " + in("plain/good") + ": permission denied", 126},
		{"good", "", in("dirs", "broken"), "cannot execute " + in("broken/good") + ": its interpreter does not exist", 126},
		{"good", "", in("dirs", "file"), "cannot execute " + in("dirs/good") + ": permission denied", 126},
		{"good", "", in("plain", "dirs"), "cannot execute " + in("plain/good") + ": permission denied", 126},
		{"good", "", in("file", "nowhere"), "cannot find good: file does not exist in PATH=" + in("file", "nowhere"), 127},
		{"plain", "", in("bin"), "cannot execute " + in("bin/plain") + ": permission denied", 126},
		{"missing", "", in("bin"), "cannot find missing: file does not exist in PATH=" + in("bin"), 127},
		{"missing", "", "", "cannot find missing: file does not exist in PATH=", 127},
		{"", "", in("bin"), "the command is empty", 126},
	} {
		spec, out := spec(t, func(s *Spec) { s.Path, s.Dir, s.Search, s.Argv = c.name, c.dir, c.path, []string{"x"} })
		p, err := execute(spec)
		linux.Close(spec.Files[1])
		if err == nil {
			got := (&started{p, out}).output(t)
			if want := c.want + "\n"; c.code != 0 || got != want {
				t.Errorf("%q in %q, PATH=%s: executed %q, want %q", c.name, c.dir, c.path, got, want)
			}
			continue
		}
		start, ok := errors.AsType[*StartError](err)
		if !ok || c.code == 0 || start.ExitCode() != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in %q, PATH=%s: %v, want %q", c.name, c.dir, c.path, err, c.want)
		}
	}
}

// TestDirectoryGone: the error names the working directory that has been deleted.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	_, err := execute(Spec{Path: "./app", Argv: []string{"x"}})
	want := "cannot execute ./app: no such file or directory: the working directory " + dir + " is deleted"
	if start, ok := errors.AsType[*StartError](err); !ok || err.Error() != want || start.ExitCode() != 127 {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestText: the shell runs a text file without a #! line, in the same process.
func TestText(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ content, want string }{
		"arguments":             {"echo \"$# $1 $2\"", "2 a b c\n"},
		"its name":              {"echo $0\n", filepath.Join(dir, "its name") + "\n"},
		"the pid":               {`[ $LISTEN_PID = $$ ] && [ $WATCHDOG_PID = $$ ] && echo mine`, "mine\n"},
		"empty":                 {"", ""},
		"an empty #! line":      {"#!\necho yes\n", "yes\n"},
		"a byte order mark":     {"\xef\xbb\xbf#!/bin/sh\necho yes\n", "yes\n"},
		"a NUL behind the head": {"echo yes; exit\n" + strings.Repeat("#", execvp.HeadSize) + "\x00", "yes\n"},
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, []byte(c.content), 0o755), os.Chmod(file, 0o755)); err != nil {
			t.Fatal(err)
		}
		p := start(t, func(s *Spec) {
			s.Path, s.Argv, s.ListenPID, s.WatchdogPID = file, []string{"x", "a", "b c"}, true, true
			s.Files[2] = s.Files[0] // the shell may complain about the byte order mark
		})
		if out := p.output(t); out != c.want {
			t.Errorf("%s: got %q, want %q", name, out, c.want)
		}
	}
}

// TestNoShell: an image without a shell.
func TestNoShell(t *testing.T) {
	root.Need(t)
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "text"), []byte("echo\n"), 0o755), os.Chmod(filepath.Join(dir, "text"), 0o755)); err != nil {
		t.Fatal(err)
	}
	err := onOwnThread(func() error { return errors.Join(syscall.Unshare(syscall.CLONE_FS), syscall.Chroot(dir)) }, Spec{Path: "/text", Argv: []string{"x"}})
	const want = "cannot execute /text: it has no #! line, and /bin/sh, which would run it, cannot be executed: no such file or directory"
	if start, ok := errors.AsType[*StartError](err); !ok || err.Error() != want || start.ExitCode() != 126 {
		t.Errorf("got %v", err)
	}
}

// TestUnreadableText: what the child cannot read, the shell could not read either.
func TestUnreadableText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "text")
	if err := errors.Join(os.WriteFile(file, nil, 0o755), os.Chmod(file, 0o755)); err != nil {
		t.Fatal(err)
	}
	err := onOwnThread(func() error { refuse(syscall.SYS_OPENAT, syscall.EACCES); return nil }, Spec{Path: file, Argv: []string{"x"}})
	want := "cannot execute " + file + ": it is not a program for this machine, and cannot be read for /bin/sh: permission denied"
	if start, ok := errors.AsType[*StartError](err); !ok || err.Error() != want || start.ExitCode() != 126 {
		t.Errorf("got %v", err)
	}
}

// onOwnThread executes a process from a thread of its own, which prepare may change, and returns the error.
func onOwnThread(prepare func() error, spec Spec) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := prepare()
		if err == nil {
			_, err = execute(spec)
		}
		failed <- err
	}()
	return <-failed
}

// loaderless returns a program whose dynamic loader does not exist, like one built for another C library.
func loaderless(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	program, err := elf.NewFile(strings.NewReader(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			copy(content[p.Off:], "/no/")
			return string(content)
		}
	}
	t.Skip("NOT TESTED: a missing dynamic loader: /bin/sh is static")
	return ""
}

// TestUnusualErrors: the search continues after them, and the last one is reported.
func TestUnusualErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ESTALE, syscall.ENODEV, syscall.ETIMEDOUT, syscall.EIO} {
		err := onOwnThread(func() error { refuse(syscall.SYS_EXECVE, errno); return nil }, Spec{Path: "true", Search: "/nowhere:/bin:/elsewhere", Argv: []string{"x"}})
		want := "cannot execute /bin/true: " + errno.Error()
		if errno == syscall.EIO { // which says that this is the program
			want = "cannot execute /nowhere/true: " + errno.Error()
		}
		if fmt.Sprint(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
