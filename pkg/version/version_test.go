package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

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
