package origin

import (
	"runtime"
	"unsafe"
)

// A Go program dies of a signal that comes before os/signal.Notify was called for it: the runtime
// takes all signals over at its start, and gives what nobody wants its default action. Notify comes
// after the initialisation of a hundred packages; a HUP in that time would end the container.
// Here the runtime is told as the first thing that the signals are wanted. It then keeps them, each once,
// until package signals takes them. What is left is the runtime's own start.

// early are the signals that somebody may send to a container that has just been started: TERM, HUP,
// INT, QUIT, USR1, USR2, WINCH. All 58 took some 2 ms, these less than 1, and the first ones are safe
// first: the many others wait for package signals.
var early = [...]uint32{15, 1, 2, 3, 10, 12, 28}

// Ignored are the signals that crank was started with as ignored, as far as that can be known: the
// runtime has replaced the action of all but these two (runtime/signal_unix.go, initsig).
type Ignored struct {
	HUP, INT bool
}

var ignored = holdSignals()

// IgnoredSignals returns which signals were ignored when crank was started: by nohup(1), for example.
func IgnoredSignals() Ignored { return ignored }

func holdSignals() Ignored {
	was := Ignored{HUP: isIgnored(1), INT: isIgnored(2)}
	for _, n := range early {
		signalEnable(n)
	}
	return was
}

// isIgnored asks with rt_sigaction(2). The handler is the first word of the kernel's structure on all
// of crank's architectures; 1 is SIG_IGN.
func isIgnored(signal uintptr) bool {
	var action [8]uintptr
	nr := rtSigaction()
	if nr == 0 {
		return false
	}
	_, _, errno := rawSyscall6(nr, signal, 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
	return errno == 0 && action[0] == 1
}

func rtSigaction() uintptr {
	switch runtime.GOARCH {
	case "amd64":
		return 13
	case "arm64", "riscv64":
		return 134
	case "arm", "s390x":
		return 174
	case "ppc64le":
		return 173
	}
	return 0
}

//go:linkname signalEnable os/signal.signal_enable
func signalEnable(n uint32)
