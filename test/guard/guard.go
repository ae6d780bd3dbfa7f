// Package guard keeps a test binary from depending on how it was started, and from leaving anything behind.
//
// The test binary starts itself a second time and watches over that run, which is the one that tests. The guarded run has
// default signal actions (nohup(1) and a shell's & leave some ignored, which every program inherits), umask 022, and a directory
// of its own as TMPDIR and XDG_RUNTIME_DIR. When it ends, in whatever way, the guard kills the processes that it has left and
// removes that directory: also after Ctrl-C, a panic, or the timeout of go test.
package guard

import (
	"os"
	"strings"
	"testing"
)

// variable is set in the environment of what runs under a guard: the guarded run, and all that it starts.
const variable = "GUARDED_TEST"

// Main runs the tests under a guard and returns their exit code. It is the body of a TestMain.
func Main(m *testing.M) int {
	Enter()
	return m.Run()
}

// Enter returns in the guarded run only. In the process that calls it first, it becomes the guard, and exits with the
// code of the guarded run; with 1 where that has passed and processes stay. A test binary that plays other roles calls it
// after it has found out that it plays none.
func Enter() {
	if os.Getenv(variable) != "" || isFuzzWorker() {
		return
	}
	if guards {
		os.Exit(guard())
	}
}

// isFuzzWorker reports whether this is a process of a fuzzer, which talks to it by inherited descriptors.
func isFuzzWorker() bool {
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(strings.TrimLeft(arg, "-"), "test.fuzzworker") {
			return true
		}
	}
	return false
}
