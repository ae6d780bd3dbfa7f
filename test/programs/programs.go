// Package programs builds the programs that the tests of whole programs drive.
package programs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

// Main builds the programs, and more (see Build), into a directory of their own, puts its path into dir, runs the tests
// under a guard and removes it. It is the body of a TestMain, and returns the exit code.
func Main(m *testing.M, dir *string, more ...string) int {
	guard.Enter()
	var err error
	if *dir, err = os.MkdirTemp("", "crank-bin-"); err == nil {
		defer os.RemoveAll(*dir)
		err = Build(*dir, more...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// traceVariable names a directory into which strace writes what crank and crankctl do: NAME.PID.THREAD for each of their threads.
// Tests that look closely at processes may fail so.
const traceVariable = "CRANK_TEST_STRACE"

const module = "github.com/crankctl/crank"

// Build builds crank, crankctl (and crankx, a link to it), the app under test, and more (paths inside the module) into dir,
// static and without the race detector, as they are shipped.
func Build(dir string, more ...string) error {
	// From crank's own directory: the test may be in a module of its own.
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	for _, path := range append([]string{"cmd/crank", "cmd/crankctl", "test/app"}, more...) {
		args = append(args, module+"/"+path)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	if traces := os.Getenv(traceVariable); traces != "" {
		if err := errors.Join(trace(dir, "crank", traces), trace(dir, "crankctl", traces)); err != nil {
			return err
		}
	}
	return os.Symlink("crankctl", filepath.Join(dir, "crankx"))
}

// trace puts a script in the place of a program, which runs it under strace. With -D the program keeps the pid of the script.
func trace(dir, name, traces string) error {
	program := filepath.Join(dir, name)
	if err := os.Rename(program, program+".real"); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec strace -D -ff -qq -o '%s/%s'.$$ -- '%s.real' \"$@\"\n", traces, name, program)
	return os.WriteFile(program, []byte(script), 0o755)
}
