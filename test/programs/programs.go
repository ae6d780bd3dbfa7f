// Package programs builds the programs that the tests of whole programs drive.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds crank, crankctl (and crankx, a link to it) and the app under test into dir, static
// and without the race detector, as they are shipped.
func Build(dir string) error {
	const module = "github.com/crankctl/crank/"
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+string(filepath.Separator),
		module+"cmd/crank", module+"cmd/crankctl", module+"test/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.Symlink("crankctl", filepath.Join(dir, "crankx"))
}
