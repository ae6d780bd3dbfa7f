package linux

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) }

// TestOwnerOfSmallGroup: F_GETOWN returns a process group below 4096 as if it were an error (fcntl(2), BUGS). In a pid namespace of its
// own the test has such a group.
func TestOwnerOfSmallGroup(t *testing.T) {
	const inside = "LINUX_TEST_SMALL_GROUP"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestOwnerOfSmallGroup$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, Setpgid: true,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			t.Skip("NOT TESTED: files that a small process group owns: cannot create a pid namespace: ", err)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const processGroup = 2 // F_OWNER_PGRP
	want := Flags{Signal: int(syscall.SIGURG), Owner: Owner{processGroup, int32(syscall.Getpgrp())}}
	if err := SetFlags(int(file.Fd()), want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFlags(int(file.Fd())); got != want || err != nil || want.Owner.ID >= 4096 {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestRenames: neither kind of rename loses a file.
func TestRenames(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	read := func(path string) string {
		content, _ := os.ReadFile(path)
		return string(content)
	}
	if err := errors.Join(os.WriteFile(a, []byte("a"), 0o600), os.WriteFile(b, []byte("b"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := RenameNew(a, b); !errors.Is(err, fs.ErrExist) || read(a)+read(b) != "ab" {
		t.Errorf("RenameNew: %v, %q and %q", err, read(a), read(b))
	}
	if err := RenameExchange(a, b); err != nil || read(a)+read(b) != "ba" {
		t.Errorf("RenameExchange: %v, %q and %q", err, read(a), read(b))
	}
	if err := RenameExchange(a, b+"c"); !errors.Is(err, fs.ErrNotExist) || read(a) != "b" {
		t.Errorf("RenameExchange with nothing: %v, %q", err, read(a))
	}
}
