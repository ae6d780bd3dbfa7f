package terminal

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Prompt is the shell's prompt. What is typed is echoed and does not contain it.
const Prompt = "what now? "

// Shell is an interactive shell on a terminal. Its methods fail the test if something goes wrong.
type Shell struct {
	*Terminal
	t     *testing.T
	ended chan struct{} // closed when the shell has been waited for
}

// StartShell starts bash, dash or zsh without user settings, in a directory and with an environment. It has job control and echo.
// At the end of the test it must be able to exit: nothing may run in its foreground.
func StartShell(t *testing.T, path, dir string, env []string) *Shell {
	t.Helper()
	args := []string{"-i"}
	switch filepath.Base(path) {
	case "bash":
		args = []string{"--norc", "--noprofile", "-i"}
	case "zsh":
		args = []string{"-f", "+Z", "-o", "nopromptsp", "-i"} // without a line editor
	}
	s := &Shell{Terminal: Open(t, true), t: t, ended: make(chan struct{})}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, slices.Concat(env, []string{"PS1=" + Prompt, "ENV=", "TERM=dumb"})
	if err := s.Start(cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.HangUp()
		<-s.ended
	})
	s.Await(Prompt)
	return s
}

// Press types text, or a key.
func (s *Shell) Press(text string) {
	s.t.Helper()
	if err := s.Type(text); err != nil {
		s.t.Fatal(err)
	}
}

// Await waits until text has been written to the terminal, and returns what came before it.
func (s *Shell) Await(text string) (before string) {
	s.t.Helper()
	before, err := s.Expect(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return before
}

// Do types a line, waits for the next prompt and returns what was written in between.
func (s *Shell) Do(line string) (written string) {
	s.t.Helper()
	s.Press(line + "\n")
	s.Await("\n") // of the echo
	return s.Await(Prompt)
}

// Succeeds is Do for a command that must exit with 0. What it writes must contain want.
func (s *Shell) Succeeds(line, want string) {
	s.t.Helper()
	if written := s.Do(line); !strings.Contains(written, want) {
		s.t.Fatalf("%s: it wrote %q, want %q", line, written, want)
	}
	if code := s.Code(); code != "0" {
		s.t.Fatalf("%s: exit code %s", line, code)
	}
}

// Code returns the exit code of the last command.
func (s *Shell) Code() string {
	s.t.Helper()
	s.Press("echo \"code=<$?>\"\n")
	s.Await("\ncode=<")
	code := s.Await(">")
	s.Await(Prompt)
	return code
}

// Exit leaves the shell.
func (s *Shell) Exit() {
	s.t.Helper()
	s.Press("exit\n")
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("the shell did not exit")
	}
}
