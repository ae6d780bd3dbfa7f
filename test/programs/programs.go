// Package programs builds the programs that the tests of whole programs drive.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main builds the programs into a directory of their own, puts its path into dir, runs the tests and
// removes it. It is the body of a TestMain, and returns the exit code.
func Main(m *testing.M, dir *string) int {
	var err error
	if *dir, err = os.MkdirTemp("", "crank-bin-"); err == nil {
		defer os.RemoveAll(*dir)
		err = Build(*dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Build builds crank, crankctl (and crankx, a link to it), the app under test, and more (paths inside the module) into dir,
// static and without the race detector, as they are shipped.
func Build(dir string, more ...string) error {
	const module = "github.com/crankctl/crank/"
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	for _, path := range append([]string{"cmd/crank", "cmd/crankctl", "test/app"}, more...) {
		args = append(args, module+path)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.Symlink("crankctl", filepath.Join(dir, "crankx"))
}
