// Package signame spells signals: TERM, SIGTERM, 15, RTMIN+3.
//
// The numbers are those of Linux, where crank runs, also in a crankctl that was built for another
// system: it only names signals, crank sends them.
package signame

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// names by number: signal(7), the column of x86 and arm.
var names = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE",
	9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT",
	17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU",
	25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS",
}

// aliases are second names in signal(7).
var aliases = map[string]syscall.Signal{"IOT": 6, "CLD": 17, "POLL": 29}

// The real-time signals as `kill -l` numbers them. 32 and 33 are the C library's, and the Go
// runtime handles neither those nor 34.
const (
	rtMin   = 34
	rtFirst = 35
	rtMax   = 64
)

// Parse returns the signal that text means: a name with or without SIG, in either case, a number,
// or RTMIN+n and RTMAX-n. 32 to 34 are refused: a Go program can neither catch nor forward them.
func Parse(text string) (syscall.Signal, error) {
	sig, ok := parse(strings.ToUpper(text))
	switch {
	case !ok:
		return 0, fmt.Errorf("%q is not a signal: want a name (TERM or SIGTERM), a number (1 to 31, 35 to 64), or RTMIN+1 to RTMIN+30", text)
	case sig > 31 && sig < rtFirst:
		return 0, fmt.Errorf("signal %q cannot be used: 32 to 34 belong to the C library and the Go runtime", text)
	}
	return sig, nil
}

func parse(text string) (syscall.Signal, bool) {
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		return syscall.Signal(n), n >= 1 && n <= rtMax
	}
	text = strings.TrimPrefix(text, "SIG")
	if sig, ok := aliases[text]; ok {
		return sig, true
	}
	if text == "" { // the table's own holes
		return 0, false
	}
	for n, name := range names {
		if name == text {
			return syscall.Signal(n), true
		}
	}
	return parseRealTime(text)
}

func parseRealTime(text string) (syscall.Signal, bool) {
	base, sign := rtMin, 1
	var offset string
	switch {
	case text == "RTMIN":
		return rtMin, true
	case text == "RTMAX":
		return rtMax, true
	case strings.HasPrefix(text, "RTMIN+"):
		offset = text[len("RTMIN+"):]
	case strings.HasPrefix(text, "RTMAX-"):
		base, sign, offset = rtMax, -1, text[len("RTMAX-"):]
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(offset, 10, 8)
	if err != nil || n > rtMax-rtMin {
		return 0, false
	}
	return syscall.Signal(base + sign*int(n)), true
}

// Name returns "SIGTERM", "SIGRTMIN+3", or "signal 99" for what is no signal. Parse reads the first
// two back.
func Name(sig syscall.Signal) string {
	switch n := int(sig); {
	case n >= 1 && n < len(names):
		return "SIG" + names[n]
	case n == rtMin:
		return "SIGRTMIN"
	case n > rtMin && n <= rtMax:
		return "SIGRTMIN+" + strconv.Itoa(n-rtMin)
	default:
		return "signal " + strconv.Itoa(n)
	}
}
