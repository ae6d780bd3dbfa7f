package sockets

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/crankctl/crank/pkg/linux"
)

// TestPidfdID: LISTEN_PIDFDID counts in addition to LISTEN_PID. test/script has the tests with real processes.
func TestPidfdID(t *testing.T) {
	own, err := linux.PidfdID(os.Getpid())
	if err != nil {
		t.Skipf("NOT TESTED: LISTEN_PIDFDID: %v", err)
	}
	parents, err := linux.PidfdID(os.Getppid())
	if err != nil || parents == own {
		t.Fatalf("the parent's is %d, %v", parents, err)
	}
	for id, want := range map[uint64]string{own: "web=fd://3", parents: ""} {
		variables := map[string]string{
			"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_PIDFDID": strconv.FormatUint(id, 10), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web",
		}
		if got := ReadPassed(func(key string) string { return variables[key] }).Unused(nil); got != want {
			t.Errorf("%d of %d: %q, want %q", id, own, got, want)
		}
	}
}

// TestPassedNames: what systemd allows, and no more (fdname_is_valid).
func TestPassedNames(t *testing.T) {
	for name, want := range map[string]bool{
		"": true, "web": true, "app@1.socket": true, "a b": true, `a\x2db`: true, "~!\"'=?": true, strings.Repeat("x", 255): true,
		"a:b": false, "\t": false, "\x7f": false, "\xe9": false, "é": false, strings.Repeat("x", 256): false,
	} {
		if got := validPassedName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
