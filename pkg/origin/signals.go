package origin

import (
	"runtime"
	"unsafe"
)

// A Go program dies of a signal that comes before it has asked for it: the runtime takes all signals over at its
// start, and gives what nobody wants its default action. Usually a program asks after the initialisation of a hundred packages;
// a HUP in that time would end the container. Here it begins as the first thing, and what is left is the runtime's own start.
//
// To be kept costs a signal two switches between threads, some 30 to 100 µs (runtime/signal_unix.go, sigenable), and crank's
// start has few milliseconds. So only those that somebody may send to a container that has just been started are kept, each once,
// and that goes on beside the initialisation of the other packages. The rest is ignored, which costs nothing, until package
// signals asks for it: what comes so early is lost, as under every init before its first moment, but ends nobody.

// kept are TERM, INT, QUIT, HUP, USR1, USR2, WINCH, and what else images have as their STOPSIGNAL: PWR, and RTMIN+3 as the C
// library counts (systemd(1), "SIGNALS").
var kept = [...]uint32{15, 2, 3, 1, 10, 12, 28, 30, 37}

// Kept returns their numbers.
func Kept() []uint32 { return kept[:] }

// child is CHLD, the last one: crank has started nothing yet.
const child = 17

// left are not ignored: KILL and STOP cannot be; an ignored CHLD would take the status of children away; URG is the
// runtime's, and so are PROF and 32 to 34.
var left = [...]uint32{9, child, 19, 23, 27, 32, 33, 34}

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
	for n := uint32(1); n <= 64; n++ {
		if !contains(kept[:], n) && !contains(left[:], n) {
			signalIgnore(n)
		}
	}
	go func() {
		for _, n := range kept {
			signalEnable(n)
		}
		signalEnable(child)
		close(keeping)
	}()
	return was
}

// keeping is closed once the signals in kept are, and CHLD.
var keeping = make(chan struct{})

// WaitForSignals returns once they are kept, and CHLD comes as well: from then on other goroutines may ask the runtime for signals,
// one at a time.
func WaitForSignals() { <-keeping }

// contains is slices.Contains: nothing may be imported here.
func contains(all []uint32, n uint32) bool {
	for _, one := range all {
		if one == n {
			return true
		}
	}
	return false
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

//go:linkname signalIgnore os/signal.signal_ignore
func signalIgnore(n uint32)
