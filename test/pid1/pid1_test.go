// Package pid1 tests crank as an init: as PID 1 of a pid namespace, and as a subreaper. Where tini,
// dumb-init and catatonit are installed they are put through the same tests, and a matrix is printed.
package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/crankctl/crank/test/guard"
	"github.com/crankctl/crank/test/programs"
)

var (
	bin    string // crank, crankctl
	inside string // the program that plays the apps
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	guard.Enter()
	dir, err := os.MkdirTemp("", "crank-pid1-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(checkNamespaces(), build(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	find(bin)
	return m.Run()
}

// build makes dir and the programs accessible to every user: some containers have another one.
func build(dir string) error {
	bin, inside = dir, filepath.Join(dir, "inside")
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return programs.Build(dir, "test/pid1/inside")
}
