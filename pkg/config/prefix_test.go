package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResolvePrefix(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "made", "here")
	dir, warn, err := ResolvePrefix(asked)
	if err != nil || warn != "" || dir != asked {
		t.Errorf("got %q, %q, %v", dir, warn, err)
	}
	file := filepath.Join(asked, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = ResolvePrefix(file)
	if err == nil || !strings.Contains(err.Error(), "-prefix (CRANK_PREFIX): ") || !strings.Contains(err.Error(), file) {
		t.Errorf("%v does not name the flag, the variable and the path", err)
	}
}

func TestNoPrefixIsAWarning(t *testing.T) {
	none := func(string) (string, error) { return "", errors.New("no runtime directory") }
	dir, warn, err := resolvePrefix("", none)
	if err != nil || dir != "" || !strings.HasPrefix(warn, "no runtime directory: running without") || strings.Contains(warn, "\n") {
		t.Errorf("got %q, %q, %v", dir, warn, err)
	}
}

func TestPaths(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		given, dir string
		conf, ctl  string
	}{
		"default":                {"", "/run/crank", "/run/crank/web.conf", "/run/crank/web.ctl"},
		"no runtime directory":   {"", "", "", ""},
		"off":                    {"off", "/run/crank", "", ""},
		"given":                  {"/x/y", "/run/crank", "/x/y", "/x/y"},
		"given, and no runtime":  {"/x/y", "", "/x/y", "/x/y"},
		"relative becomes fixed": {"./y", "/run/crank", here + "/y", here + "/y"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Name: "web", Conf: test.given, Ctl: test.given}
			if conf, ctl := c.ConfPath(test.dir), c.CtlAddress(test.dir); conf != test.conf || ctl != test.ctl {
				t.Errorf("got %q and %q, want %q and %q", conf, ctl, test.conf, test.ctl)
			}
		})
	}
	for given, want := range map[string]string{"tcp://127.0.0.1:9": "tcp://127.0.0.1:9", "unix:///x/y": "/x/y"} {
		if got := (Config{Ctl: given}).CtlAddress("/run/crank"); got != want {
			t.Errorf("-ctl %s: %q, want %q", given, got, want)
		}
	}
}
