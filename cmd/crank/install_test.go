package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// sources are programs to install, and root is where to.
func sources(t *testing.T) (from string, root *os.Root) {
	t.Helper()
	from = t.TempDir()
	for _, name := range []string{"crank", "crankctl"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte("new "+name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return from, root
}

func TestInstallFile(t *testing.T) {
	from, root := sources(t)
	outside := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(outside, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What a neighbour with the same volume may have put there.
	if err := root.Symlink(outside, "crank"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it replaces its own
		if err := installFile(root, "crank", filepath.Join(from, "crank")); err != nil {
			t.Fatal(err)
		}
		if err := installLink(root, "crankx", "crankctl"); err != nil {
			t.Fatal(err)
		}
	}
	info, err := root.Lstat("crank")
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("crank is %v, %v", info.Mode(), err)
	}
	if got, err := root.ReadFile("crank"); err != nil || !bytes.Equal(got, []byte("new crank")) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "untouched" {
		t.Errorf("the target of the link: %q, %v", got, err)
	}
	if target, err := root.Readlink("crankx"); err != nil || target != "crankctl" {
		t.Errorf("crankx -> %q, %v", target, err)
	}
	entries, err := os.ReadDir(root.Name())
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestInstallFails(t *testing.T) {
	from, root := sources(t)
	if err := root.Mkdir("crank", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := installFile(root, "crank", filepath.Join(from, "crank")); err == nil {
		t.Error("a directory was replaced")
	}
	if err := installFile(root, "x", filepath.Join(from, "missing")); err == nil {
		t.Error("no error")
	}
	entries, err := os.ReadDir(root.Name())
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := install("/proc/nowhere"); err == nil {
		t.Error("no error")
	}
}
