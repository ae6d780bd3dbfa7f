package execvp

import (
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestPath(t *testing.T) {
	for want, env := range map[string][]string{
		"/a:/b":     {"HOME=/", "PATH=/a:/b", "PATH=/c"},
		"":          {"PATH="},
		DefaultPath: {"HOME=/", "PATHS=/a"},
	} {
		if got := Path(env); got != want {
			t.Errorf("%q: %q, want %q", env, got, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct{ name, path, want string }{
		{"cmd", "/a:/b/", "/a/cmd /b/cmd"},
		{"cmd", "", "./cmd"},
		{"cmd", ":/a::bin:", "./cmd /a/cmd ./cmd bin/cmd ./cmd"},
		{"cmd", "/", "/cmd"},
		{"cmd", "-x", "./-x/cmd"},
		{"-cmd", "", "./-cmd"},
		{"./cmd", "/a", "./cmd"},
		{"../a/../cmd", "/a", "../a/../cmd"}, // a may be a symlink
		{"-x/cmd", "/a", "./-x/cmd"},
	} {
		if got := strings.Join(Candidates(c.name, c.path), " "); got != c.want {
			t.Errorf("%s in %q: %s, want %s", c.name, c.path, got, c.want)
		}
	}
}

// TestGoesOn: as in glibc's posix/execvpe.c.
func TestGoesOn(t *testing.T) {
	on := []syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.ESTALE, syscall.ENODEV, syscall.ETIMEDOUT}
	for errno := syscall.Errno(0); errno < 256; errno++ {
		if GoesOn(errno) != slices.Contains(on, errno) {
			t.Errorf("%v: %v", errno, GoesOn(errno))
		}
	}
}

func TestIsText(t *testing.T) {
	for head, want := range map[string]bool{
		"": true, "echo": true, "\xef\xbb\xbfecho": true, "\x7f": true, "\x7fEL": true, "caf\xe9": true,
		"\x7fELF": false, "\x7fELFx": false, "a\x00": false, "\x00": false,
	} {
		if IsText([]byte(head)) != want {
			t.Errorf("%q: %v", head, !want)
		}
	}
}

func TestNoInterpreter(t *testing.T) {
	for head, want := range map[string]string{
		"#!/no/sh -e\n":         `"/no/sh" in its #! line`,
		"#! \t/no/sh\t-e":       `"/no/sh" in its #! line`,
		"#!/bin/sh\r\necho\r\n": `"/bin/sh\r": save the script with LF`,
		"#!/usr/bin/env sh\r\n": `"/usr/bin/env" in its #! line`,
		"\x7fELF\x02":           "the dynamic loader",
		"":                      "the #! line, or the dynamic loader",
	} {
		if got := NoInterpreter([]byte(head)).Error(); !strings.HasPrefix(got, "its interpreter does not exist") || !strings.Contains(got, want) {
			t.Errorf("%q: %s", head, got)
		}
	}
}
