package load

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/processes"
)

// swaps is how often TestSwapsUnderLoad swaps for each -settle.
const swaps = 100

// Every way to ask for a swap, in turn, loses nothing.
func TestSwapsUnderLoad(t *testing.T) {
	for _, settle := range []string{"0", "50ms"} {
		t.Run("settle "+settle, func(t *testing.T) {
			i := start(t, []string{"-settle", settle}, app()...)
			i.load()
			i.traffic(200)
			for n := range swaps {
				switch n % 4 {
				case 0, 1:
					i.swap(app("-status", fmt.Sprint("version ", n))...)
				case 2:
					i.hup()
				case 3:
					i.crankctlRun(app("-status", fmt.Sprint("version ", n))...)
				}
			}
			i.traffic(200)
			report := i.stop()
			if generation, _ := i.current(); generation != 1+swaps {
				t.Errorf("generation %d serves, want %d", generation, 1+swaps)
			}
			if len(report.Bodies) < swaps/4 {
				t.Errorf("only %d generations have answered", len(report.Bodies))
			}
		})
	}
}

// hup sends SIGHUP and waits until a new generation is current.
func (i *instance) hup() {
	i.t.Helper()
	generation, _ := i.current()
	i.process.Process.Signal(syscall.SIGHUP)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := i.client.Wait(ctx, "generation", generation+1, nil); err != nil {
		i.t.Fatalf("after HUP: %v", err)
	}
	i.good++
}

// crankctlRun swaps with crankctl.
func (i *instance) crankctlRun(command ...string) {
	i.t.Helper()
	i.idle() // it would be refused where many are draining
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args := append([]string{"-prefix", i.dir, "-name", "load", "run", "-wait", "-o", "json", "--"}, command...)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "crankctl"), args...)
	cmd.Env = processes.Environment()
	out, err := cmd.Output()
	var result control.Result
	if err != nil || json.Unmarshal(out, &result) != nil || !result.OK {
		i.t.Fatalf("crankctl run: %v, %s", err, out)
	}
	i.good++
}

// The same once with every default: 1 s of settling, 30 s to start.
func TestDefaults(t *testing.T) {
	t.Parallel() // most of it is waiting
	i := start(t, nil, app()...)
	if found := i.apps(); len(found) != 1 {
		t.Errorf("the processes of the app are %v, want one", found)
	}
	i.load()
	i.traffic(200)
	i.swap(app("-ready-after", "100ms")...)
	i.traffic(200)
	i.kept(broken{name: "exit 3", flags: []string{"-exit", "3", "-exit-after", "100ms", "-ready-after", "1h"}, reason: "exited 3"})
	i.traffic(200)
	i.stop()
}
