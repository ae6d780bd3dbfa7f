// Package layout states which package may import which.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) }

const module = "github.com/crankctl/crank/"

// homes are things that only one package may import.
var homes = map[string]string{
	"golang.org/x/sys/unix":                "pkg/linux",
	"github.com/kelseyhightower/envconfig": "pkg/config",
	"log/slog":                             "pkg/logging",
	"os/exec":                              "", // nobody: pkg/proc forks
	"os/signal":                            "", // nobody: the runtime has one receiver, and that is pkg/signals
	"github.com/prometheus/client_golang":  "pkg/metrics",
	"net/http/pprof":                       "",
}

// allowed are the project's own packages that each package may import. What is not here may import
// none of them.
var allowed = map[string][]string{
	"cmd/crank": {"pkg/config", "pkg/control", "pkg/control/server", "pkg/health", "pkg/launch", "pkg/linux", "pkg/logging", "pkg/metrics", "pkg/notify", "pkg/output", "pkg/parent",
		"pkg/probe", "pkg/rundir", "pkg/saved", "pkg/signals", "pkg/sockets", "pkg/supervisor", "pkg/version"},
	"cmd/crankctl":                  {"pkg/control", "pkg/execvp", "pkg/rundir", "pkg/signame", "pkg/version"},
	"pkg/config":                    {"pkg/profile", "pkg/rundir", "pkg/signame"},
	"pkg/control":                   {"pkg/listening"},
	"pkg/control/server":            {"pkg/control", "pkg/linux", "pkg/signame", "pkg/sockets", "pkg/supervisor"},
	"pkg/control/server/servertest": {"pkg/control/server", "pkg/supervisor"},
	"pkg/health":                    {"pkg/sockets", "pkg/supervisor", "pkg/version"},
	"pkg/launch":                    {"pkg/execvp", "pkg/linux", "pkg/listening", "pkg/logging", "pkg/notify", "pkg/output", "pkg/proc", "pkg/profile", "pkg/sockets", "pkg/supervisor"},
	"pkg/metrics":                   {"pkg/supervisor", "pkg/version"},
	"pkg/notify":                    {"pkg/linux"},
	"pkg/output":                    {"pkg/linux"},
	"pkg/parent":                    {"pkg/supervisor"},
	"pkg/probe":                     {"pkg/listening"},
	"pkg/proc":                      {"pkg/execvp", "pkg/linux", "pkg/origin", "pkg/signame"},
	"pkg/signals":                   {"pkg/linux", "pkg/origin"},
	"pkg/saved":                     {"pkg/linux", "pkg/supervisor"},
	"pkg/sockets":                   {"pkg/linux", "pkg/listening"},
	"pkg/supervisor":                {"pkg/notify", "pkg/proc", "pkg/signame"},
}

// standardOnly packages import only the standard library and, where allowed above, each other.
var standardOnly = []string{"pkg/child", "pkg/control", "pkg/execvp", "pkg/listening", "pkg/origin", "pkg/profile", "pkg/rundir", "pkg/signame", "pkg/version"}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "../../cmd/...", "../../pkg/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, i := range p.Imports {
			own, isOwn := strings.CutPrefix(i, module)
			if isOwn && !slices.Contains(allowed[name], own) {
				t.Errorf("%s must not import %s", name, own)
			}
			for thing, home := range homes {
				if (i == thing || strings.HasPrefix(i, thing+"/")) && name != home {
					t.Errorf("%s must not import %s: its home is %q", name, i, home)
				}
			}
			if slices.Contains(standardOnly, name) && !isOwn && strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				t.Errorf("%s imports %s, and may import the standard library only", name, i)
			}
		}
	}
}

// TestSupervisorKnowsNoWorld: the state machine can be tested in a bubble because of this.
func TestSupervisorKnowsNoWorld(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"pkg/supervisor" {
			continue
		}
		for _, i := range p.Imports {
			if i == "net" || strings.HasPrefix(i, "net/") || i == "os" {
				t.Errorf("pkg/supervisor imports %s", i)
			}
		}
	}
}

// TestTablesAreCurrent: a rule for a package that is gone is no rule.
func TestTablesAreCurrent(t *testing.T) {
	var names []string
	for _, p := range list(t) {
		names = append(names, strings.TrimPrefix(p.ImportPath, module))
	}
	for name, imports := range allowed {
		for _, n := range append(imports, name) {
			if !slices.Contains(names, n) {
				t.Errorf("the table names %s, which does not exist", n)
			}
		}
	}
}
