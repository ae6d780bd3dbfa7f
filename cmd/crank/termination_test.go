package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/crankctl/crank/pkg/supervisor"
)

func TestTerminationMessage(t *testing.T) {
	long := strings.Repeat("€", 5000)
	for _, c := range []struct {
		name, reason string
		lines        []string
		want         string // empty: only the limits are checked
	}{
		{"reason alone", "generation 1 (pid 7) exited 3", nil, "web: generation 1 (pid 7) exited 3\n"},
		{"with lines", "exited 3", []string{"one", "two"}, "web: exited 3\none\ntwo\n"},
		{"long lines", "exited 3", []string{long, "last"}, "web: exited 3\nlast\n"},
		{"one long line", "exited 3", []string{long}, ""},
		{"a long reason", long, []string{"x"}, ""},
		{"not UTF-8", "\xff\xfe", []string{"x"}, "web: ?\nx\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := terminationMessage("web", c.reason, supervisor.Tail{Lines: c.lines})
			if c.want != "" && got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(got) > terminationLimit || !strings.HasPrefix(got, "web: ") || !strings.HasSuffix(got, "\n") || !utf8.ValidString(got) {
				t.Errorf("%d bytes: %q...", len(got), got[:20])
			}
		})
	}
}

func TestWriteTerminationLog(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// None of these may fail, or block.
	for _, path := range []string{"off", filepath.Join(dir, "no", "such", "directory"), dir, fifo} {
		writeTerminationLog(path, "web", "exited 3", supervisor.Tail{})
	}
	path := filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("old", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	writeTerminationLog(path, "web", "exited 3", supervisor.Tail{Lines: []string{"boo"}})
	if got, err := os.ReadFile(path); err != nil || string(got) != "web: exited 3\nboo\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Whoever can write to the directory of the file must not have crank write, with its own rights, to another one.
func TestTerminationLogIsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(victim, dir+"/link"), os.Link(victim, dir+"/hard"), os.Symlink(dir+"/new", dir+"/dangling")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "hard", "dangling"} {
		writeTerminationLog(filepath.Join(dir, name), "web", "exited 3", supervisor.Tail{Lines: []string{"root::0:0::/:/bin/sh"}})
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := os.Lstat(dir + "/new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made elsewhere: %v", err)
	}
}
