package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) }

// A program that is installed but does not work counts as missing, and the error tells the difference.
func TestWorks(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"rustc":   "echo 'error: rustup could not choose a version of rustc to run' >&2; exit 1",
		"ruby":    `[ "$*" = --version ]`,
		"java":    `[ "$*" = -version ]`,
		"strace":  `echo "strace: ptrace(PTRACE_TRACEME, ...): Operation not permitted" >&2; exit 1`,
		"unknown": "exit 1",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	for name, want := range map[string]string{
		"rustc":  "rustc does not work: rustc --version: exit status 1: error: rustup could not choose a version of rustc to run",
		"strace": "strace does not work: strace -f -o /dev/null true: exit status 1: strace: ptrace(PTRACE_TRACEME, ...): Operation not permitted",
		"node":   "node is not installed",
		"ruby":   "", "java": "", "unknown": "",
	} {
		got := ""
		if err := Works(name); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if err := Works(filepath.Join(dir, "rustc")); err == nil || !strings.Contains(err.Error(), "does not work") {
		t.Errorf("by its path: %v", err)
	}
}
