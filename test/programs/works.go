package programs

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trials are arguments with which programs exit immediately, and successfully if they work.
var trials = map[string][]string{
	"cargo": {"--version"}, "rustc": {"--version"}, "node": {"--version"}, "python3": {"--version"}, "ruby": {"--version"},
	"java": {"-version"}, "javac": {"-version"}, "puma": {"--version"}, "gunicorn": {"--version"},
	"nginx": {"-v"}, "haproxy": {"-v"}, "php-fpm8.2": {"-v"},
	"tini": {"--version"}, "dumb-init": {"--version"}, "catatonit": {"--version"}, "start_server": {"--version"},
	"curl": {"--version"}, "promtool": {"--version"}, "prlimit": {"--version"}, "systemd-notify": {"--version"},
	"strace": {"-f", "-o", "/dev/null", "true"},
}

// Need skips the test, and says why, if a program is missing or does not work.
func Need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := Works(name); err != nil {
			t.Skipf("NOT TESTED: %s: %v", t.Name(), err)
		}
	}
}

// Works returns why a program cannot be used, or nil. An installed program need not work: a proxy whose toolchain is missing, a shim
// for which no version is set, a tracer that may not trace. A program without a trial need only be installed.
func Works(name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%s is not installed", name)
	}
	args, ok := trials[filepath.Base(name)]
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%s does not work: %s %s: %w: %s", name, name, strings.Join(args, " "), err, said)
	}
	return nil
}
