// Package architectures runs crank for each architecture that it is built for. Those that are not the machine's are emulated by QEMU's
// user mode, as containers of another architecture are on a developer's machine; the app and crankctl are the machine's own.
package architectures

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/instance"
	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/programs"
)

// emulators is QEMU's name for each of Go's.
var emulators = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "arm": "arm", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}

const patience = 2 * time.Minute

var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin)) }

func TestArchitectures(t *testing.T) {
	for arch, name := range emulators {
		t.Run(arch, func(t *testing.T) {
			dir := build(t, arch, name)
			t.Run("init", func(t *testing.T) { beInit(t, dir) })
			t.Run("swap", func(t *testing.T) { swap(t, dir) })
		})
	}
}

// build returns a directory with crank for an architecture beside the machine's own programs.
func build(t *testing.T, arch, name string) (dir string) {
	dir = t.TempDir()
	for _, program := range []string{"crankctl", "app"} {
		if err := os.Symlink(filepath.Join(bin, program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	crank := filepath.Join(dir, "crank")
	if arch == runtime.GOARCH {
		if err := os.Symlink(filepath.Join(bin, "crank"), crank); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	emulator, err := exec.LookPath("qemu-" + name + "-static")
	switch {
	case err != nil && os.Getenv("REQUIRE_EMULATORS") != "":
		t.Fatal(err)
	case err != nil:
		t.Skipf("NOT TESTED: crank on %s: %v (Debian: qemu-user-static)", arch, err)
	}
	build := exec.Command("go", "build", "-o", crank+"."+arch, "../../cmd/crank")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' '%s.%s' \"$@\"\n", emulator, crank, arch)
	if err := os.WriteFile(crank, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// beInit looks at exit codes, also of a command that the child could not execute, and at the child's own pid in its environment.
func beInit(t *testing.T, dir string) {
	for _, c := range []struct {
		flags, command []string
		code           int
	}{
		{nil, []string{"sh", "-c", "exit 7"}, 7},
		{nil, []string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{nil, []string{"/no/such/program"}, 127},
		{nil, []string{dir}, 126},
		{[]string{"-bind", "127.0.0.1:0", "-ready", "none"}, []string{"sh", "-c", "test $LISTEN_PID = $$ && test $LISTEN_FDS = 1 && exit 7"}, 7},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		args := append([]string{"-prefix", t.TempDir(), "-ctl", "off"}, c.flags...)
		cmd := exec.CommandContext(ctx, filepath.Join(dir, "crank"), append(append(args, "--"), c.command...)...)
		cmd.Env = processes.Environment("PATH=" + os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code {
			t.Errorf("%v: %v, want exit code %d\n%s", c.command, err, c.code, out)
		}
	}
}

// swap swaps an app, and has a candidate fail.
func swap(t *testing.T, dir string) {
	app := filepath.Join(dir, "app")
	i := instance.Start(t, dir, []string{"-http", "127.0.0.1:0"}, app)
	answers(t, i, "generation 1 ")
	i.Crankctl("reload", "-wait")
	i.Crankctl("wait", "-idle") // until then the old one may still accept
	answers(t, i, "generation 2 ")
	i.Crankctl("run", "--", app, "-exit", "3") // fails later
	i.Crankctl("wait", "-idle")
	answers(t, i, "generation 2 ")
	i.Terminate()
	i.Wait()
}

func answers(t *testing.T, i *instance.Instance, want string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + i.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || !strings.HasPrefix(string(body), want) {
		t.Errorf("answered %q, %v; want %q", body, err, want)
	}
}
