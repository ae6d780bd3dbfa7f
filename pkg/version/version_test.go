package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) }

func TestString(t *testing.T) {
	goAndPlatform := runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH
	setting := func(kv ...string) (list []debug.BuildSetting) {
		for i := 0; i < len(kv); i += 2 {
			list = append(list, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return list
	}
	for name, test := range map[string]struct {
		build *debug.BuildInfo
		want  string
	}{
		"no build info": {nil, "devel (" + goAndPlatform + ")"},
		"go run":        {&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "devel (" + goAndPlatform + ")"},
		"go install":    {&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "v1.2.3 (" + goAndPlatform + ")"},
		"from a clean tree": {&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: setting(
			"vcs", "git", "vcs.revision", "0123456789abcdef0123", "vcs.time", "2026-01-02T03:04:05Z", "vcs.modified", "false")},
			"v1.2.3 (0123456789ab, 2026-01-02T03:04:05Z, " + goAndPlatform + ")"},
		"from a changed tree": {&debug.BuildInfo{Settings: setting("vcs.revision", "0123", "vcs.modified", "true")},
			"devel (0123, modified, " + goAndPlatform + ")"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fromBuild(test.build).String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestOwnBuild(t *testing.T) {
	if got := String(); !strings.Contains(got, runtime.Version()) {
		t.Errorf("%q does not name %s", got, runtime.Version())
	}
	if first, second := Get(), Get(); first != second {
		t.Error("two answers differ")
	}
}

// The Dockerfile has no repository to read the version from: it sets these variables by name.
func TestStamped(t *testing.T) {
	const symbol = "github.com/crankctl/crank/pkg/version."
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "crank")
	flags := "-X " + symbol + "release=v9.8.7 -X " + symbol + "revision=fedcba9876543210"
	for _, name := range []string{"release", "revision"} {
		if !strings.Contains(string(dockerfile), "-X "+symbol+name+"=") {
			t.Errorf("the Dockerfile does not set %s", name)
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", flags, "-o", exe, "../../cmd/crank")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(exe, "-version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "crank v9.8.7 (fedcba987654, " + runtime.Version(); !strings.HasPrefix(string(out), want) {
		t.Errorf("got  %s\nwant %s…", out, want)
	}
}
