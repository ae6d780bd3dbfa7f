package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDirectory: a name of the working directory is kept, and a relative -cwd is resolved against it.
func TestDirectory(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	release, current, loop := root+"/releases/1", root+"/current", root+"/loop"
	if err := errors.Join(os.MkdirAll(release+"/sub", 0o755), os.Symlink("releases/1", current), os.Symlink("loop", loop),
		os.WriteFile(root+"/file", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(release)
	here, err := os.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	for _, c := range []struct{ pwd, cwd, want string }{
		{current, "", current},
		{release, "", release},
		{current + "/", "", current + "/"},
		{"", "", ""},
		{"current", "", ""},
		{".", "", ""},
		{root, "", ""},
		{root + "/gone", "", ""},
		{root + "/file", "", ""},
		{loop, "", ""},
		{"/proc/self/cwd", "", ""},
		{"/proc/./self/../self/cwd", "", ""},
		{fmt.Sprintf("/dev/fd/%d", here.Fd()), "", ""},
		{fmt.Sprintf("/dev/fd/%d/../1", here.Fd()), "", ""},
		{current, ".", current},
		{current, "sub", current + "/sub"},
		{current, "../1/sub", current + "/../1/sub"},
		{root, "sub", release + "/sub"},
		{"", "sub", release + "/sub"},
		{"/proc/self/cwd", "sub", release + "/sub"},
		{current, root, root},
		{current, current, current},
		{current, "gone", "cannot enter " + current + "/gone: no such file or directory: create the directory"},
		{current, root + "/file", "cannot enter " + root + "/file: not a directory"},
		{current, root + "/file/x", "cannot enter " + root + "/file/x: not a directory"},
		{current, loop, "cannot enter " + loop + ": too many levels of symbolic links"},
	} {
		t.Setenv("PWD", c.pwd)
		crank := crank{}
		crank.cfg.Cwd = c.cwd
		err := crank.directory()
		if err == nil && crank.dir != c.want || err != nil && !strings.HasPrefix(err.Error(), "-cwd (CRANK_CWD): "+c.want) {
			t.Errorf("PWD=%s -cwd %q: got %q, %v, want %q", c.pwd, c.cwd, crank.dir, err, c.want)
		}
	}
}
