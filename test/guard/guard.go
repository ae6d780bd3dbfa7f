// Package guard keeps a test binary from depending on how it was started, and from leaving anything behind.
//
// The test binary starts itself a second time and supervises that run, which runs the tests. The guarded run has default
// signal actions (nohup(1) and a shell's & leave some ignored, which every program inherits), umask 022, and its own directory
// as TMPDIR and XDG_RUNTIME_DIR. However it ends, the guard kills the processes that it left behind and removes that
// directory: even after Ctrl-C, a panic, or a timeout of go test.
package guard

import (
	"os"
	"strings"
	"testing"
)

// variable is set in the environment of everything under a guard: the guarded run, and all processes that it starts.
const variable = "GUARDED_TEST"

// Main runs the tests under a guard and returns their exit code. It is the body of a TestMain.
func Main(m *testing.M) int {
	Enter()
	return m.Run()
}

// Enter returns only in the guarded run. The process that calls it first becomes the guard, and exits with the code of the
// guarded run, or with 1 if that passed but left processes behind. A test binary that plays other roles calls it once it
// knows that it plays none.
func Enter() {
	if os.Getenv(variable) != "" || isFuzzWorker() {
		return
	}
	if guards {
		os.Exit(guard())
	}
}

// isFuzzWorker reports whether this is a worker of a fuzzer, which talks to it over inherited descriptors.
func isFuzzWorker() bool {
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(strings.TrimLeft(arg, "-"), "test.fuzzworker") {
			return true
		}
	}
	return false
}
