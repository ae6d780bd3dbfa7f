package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/guard"
	"github.com/crankctl/crank/test/root"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) } // the tests check modes, so the tester's umask must not apply

func TestFirst(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(root, "old")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	missing := place{path: filepath.Join(root, "missing"), existing: true}
	noParent := place{path: filepath.Join(root, "no", "parent")}
	blocked := place{path: file}
	fresh := place{path: filepath.Join(root, "fresh")}
	existing := place{path: old, existing: true}

	for name, test := range map[string]struct {
		places []place
		want   string
	}{
		"an existing one is used":           {[]place{existing, fresh}, existing.path},
		"a missing one is not made":         {[]place{missing, fresh}, fresh.path},
		"a file or a missing parent is not": {[]place{blocked, noParent, fresh}, fresh.path},
		"used again":                        {[]place{fresh}, fresh.path},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := first(test.places)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
			if left, _ := filepath.Glob(filepath.Join(got, "*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}

	_, err := first([]place{missing, noParent, blocked})
	if err == nil {
		t.Fatal("nothing usable, and no error")
	}
	for _, p := range []place{missing, noParent, blocked} {
		if !strings.Contains(err.Error(), p.path+": ") {
			t.Errorf("%q does not say why not %s", err, p.path)
		}
	}
}

func TestModeDoesNotDependOnUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir, err := Make(filepath.Join(t.TempDir(), "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v; want 0711", info.Mode(), err)
	}
}

// Whoever can write to the parent can put a link in the place of a directory that was just made. This attacks as fast as it can.
func TestMadeAndExchanged(t *testing.T) {
	parent, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(parent, "crank")
	done, ended := make(chan struct{}), make(chan struct{})
	var replaced atomic.Int64
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				if os.Remove(path) == nil && os.Symlink(victim, path) == nil {
					replaced.Add(1)
				}
			}
		}
	}()
	for began, n := time.Now(), 0; n < 500 || replaced.Load() == 0 && time.Since(began) < time.Minute; n++ {
		_ = (place{path: path}).use()
		os.Remove(path)
		if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the victim: %v, %v", info.Mode(), err)
		}
	}
	close(done)
	if <-ended; replaced.Load() == 0 {
		t.Error("the attack has not taken place")
	}
}

func TestPrivate(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(path string) error
		mode    os.FileMode
		refused string // "": used
	}{
		"made":             {func(string) error { return nil }, 0o711, ""},
		"made before":      {func(path string) error { return os.Mkdir(path, 0o711) }, 0o711, ""},
		"closed to others": {func(path string) error { return os.Mkdir(path, 0o700) }, 0o700, ""},
		"others can list":  {func(path string) error { return os.Mkdir(path, 0o755) }, 0, "mode 0755"},
		"others can write": {func(path string) error { return errors.Join(os.Mkdir(path, 0o711), os.Chmod(path, 0o733)) }, 0, "mode 0733"},
		"a group can list": {func(path string) error { return errors.Join(os.Mkdir(path, 0o711), os.Chmod(path, 0o751)) }, 0, "mode 0751"},
		"a file":           {func(path string) error { return os.WriteFile(path, nil, 0o700) }, 0, "not a directory"},
		"a symlink":        {func(path string) error { return os.Symlink(os.TempDir(), path) }, 0, "not a directory"},
		"a dangling link":  {func(path string) error { return os.Symlink(path+".gone", path) }, 0, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "crank")
			if err := test.prepare(path); err != nil {
				t.Fatal(err)
			}
			err := place{path: path, private: true}.use()
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("got %v, want %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != test.mode {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

func TestPrivateOfAnother(t *testing.T) {
	path := "/proc/self" // a symlink: refused for that where nothing can be given away
	refused := "not a directory"
	if root.Full() {
		path, refused = filepath.Join(t.TempDir(), "crank"), "another user"
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	if err := (place{path: path, private: true}).use(); err == nil || !strings.Contains(err.Error(), refused) {
		t.Errorf("got %v, want %q", err, refused)
	}
}

func TestMakeAsked(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	dir, err := Make("./")
	if err != nil {
		t.Fatal(err)
	}
	if real, _ := filepath.EvalSymlinks(root); dir != root && dir != real {
		t.Errorf("got %q, want %q", dir, root)
	}
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, asked := range []string{"file", "file/below", "/proc/nothing/here", "/proc"} {
		if _, err := Make(asked); err == nil || !strings.Contains(err.Error(), asked) {
			t.Errorf("Make(%q): %v, want an error that names it", asked, err)
		}
	}
}

// emptySharedMemory hides the directories of the machine's users, the tester's included, until the end of the test.
func emptySharedMemory(t *testing.T) {
	t.Helper()
	old := sharedMemoryDir
	sharedMemoryDir = t.TempDir()
	t.Cleanup(func() { sharedMemoryDir = old })
}

func TestCandidates(t *testing.T) {
	if sharedMemoryDir != "/dev/shm" {
		t.Errorf("shared memory is at %s", sharedMemoryDir)
	}
	emptySharedMemory(t)
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	got := Candidates()
	want := []string{"/var/crank", "/run/crank", "/run/user/7/crank"}
	if !slices.Equal(got[:3], want) {
		t.Errorf("got %q, want %q first", got, want)
	}
	if len(got) != 4 || !strings.HasPrefix(got[3], sharedMemoryDir+"/crank-") {
		t.Errorf("got %q, want one in shared memory last", got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	if got := Candidates(); slices.Contains(got, "relative/crank") {
		t.Errorf("a relative XDG_RUNTIME_DIR is used: %q", got)
	}
}

// crankctl must not look for crank in a directory of /dev/shm that somebody else has made under the name that crank's would have.
func TestCandidatesOfAnother(t *testing.T) {
	root.Need(t)
	emptySharedMemory(t)
	all := Candidates()
	shm := all[len(all)-1]
	if err := os.Mkdir(shm, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := Candidates(); !slices.Contains(got, shm) {
		t.Errorf("%q: one's own is left out", got)
	}
	if err := os.Chown(shm, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if got := Candidates(); slices.Contains(got, shm) {
		t.Errorf("%q", got)
	}
}

func TestRemake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	for range 2 { // it is made, and then it is there
		if err := Remake(path, nil); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeDir|0o711 {
			t.Errorf("it is %v, error %v", info.Mode(), err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Remake(link, nil); err == nil {
		t.Error("a link is followed")
	}
	if root.Full() { // only root can give it away
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if err := Remake(path, nil); err == nil {
			t.Error("the directory of another user is used")
		}
	}
}

// A directory that crank has used from the start is no worse for being another user's, or behind a link. One that came later, even with
// the same inode, is.
func TestRemakeOfTheSame(t *testing.T) {
	root.Need(t)
	path := filepath.Join(t.TempDir(), "run")
	link := path + ".link"
	if err := errors.Join(os.Mkdir(path, 0o775), os.Chown(path, 12345, -1), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		if err := Remake(p, was); err != nil {
			t.Error(err)
		}
	}
	if err := os.Chown(path, 12346, -1); err != nil {
		t.Fatal(err)
	}
	if err := Remake(path, was); err == nil {
		t.Error("the directory of another user is used")
	}
}

// Root finds the crank of an unprivileged user, but no directory that somebody has put there in a user's name.
func TestOfOthers(t *testing.T) {
	root.Need(t)
	emptySharedMemory(t)
	own, feigned := inSharedMemory("12345", pidNamespace()), inSharedMemory("12346", pidNamespace())
	for _, dir := range []string{own, feigned} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	if others := OfOthers(); !slices.Equal(others, []string{own}) {
		t.Errorf("of others: %v, want %s", others, own)
	}
	if candidates := Candidates(); slices.Contains(candidates, own) {
		t.Errorf("candidates are %v: they are not root's own", candidates)
	}
}

// TestAbsolute: a relative path means the same file after a symlink in $PWD leads elsewhere.
func TestAbsolute(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir+"/1", 0o755), os.Symlink("1", dir+"/current")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir + "/current") // sets PWD
	for path, want := range map[string]string{".": dir + "/1", "./a/../b": dir + "/1/b", dir + "/current/": dir + "/current"} {
		if got, err := Absolute(path); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", path, got, err, want)
		}
	}
	made, err := Make("run")
	if err != nil || made != dir+"/1/run" {
		t.Errorf("made %s, %v", made, err)
	}
}
