// Package origin remembers what crank inherited before the Go runtime changed it.
//
// Go raises its own soft RLIMIT_NOFILE in the initialisation of package syscall
// (https://go.dev/issue/46279) and restores it only in children that syscall.ForkExec starts. crank
// forks by itself, and an app that uses select(2) breaks above 1024, so the number must be read
// before that. Go initialises packages in the order of their import paths, those without imports
// first (language specification, "Package initialization"), hence: this package imports nothing
// that is initialised, and a test shows that the child gets the parent's limit.
package origin

import (
	"runtime" // is initialised before all others; only its constants are used here
	"unsafe"
)

// Limit is a resource limit as prlimit(2) has it.
type Limit struct {
	Cur, Max uint64
}

// The same on all of crank's architectures.
const (
	rlimitCPU    = 0
	rlimitNofile = 7
)

var (
	nofile, nofileOK = readLimit(rlimitNofile)
	cpu, cpuOK       = readLimit(rlimitCPU)
)

// Nofile returns the RLIMIT_NOFILE that crank was started with; ok is false where it is unknown.
func Nofile() (l Limit, ok bool) { return nofile, nofileOK }

// CPU returns the RLIMIT_CPU that crank was started with, which the kernel raises when crank reaches it; ok is false if it is unknown.
func CPU() (l Limit, ok bool) { return cpu, cpuOK }

// prlimit64 is the system call's number; package syscall must not be imported here.
func prlimit64() uintptr {
	switch runtime.GOARCH {
	case "amd64":
		return 302
	case "arm":
		return 369
	case "arm64", "riscv64":
		return 261
	case "ppc64le":
		return 325
	case "s390x":
		return 334
	}
	return 0
}

func readLimit(resource uintptr) (l Limit, ok bool) {
	nr := prlimit64()
	if nr == 0 {
		return l, false
	}
	_, _, errno := rawSyscall6(nr, 0, resource, 0, uintptr(unsafe.Pointer(&l)), 0, 0)
	return l, errno == 0
}

//go:linkname rawSyscall6 syscall.RawSyscall6
//go:noescape
func rawSyscall6(nr, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, errno uintptr)
