package signals

import (
	"time"

	"github.com/crankctl/crank/pkg/linux"
)

// cpuLimit distinguishes an XCPU from the kernel, which is about crank's own CPU time, from one sent by another process: the kernel raises
// the limit each time. Some sandboxes do not.
type cpuLimit struct {
	seconds uint64 // as last seen; 0: none
}

func newCPULimit() cpuLimit {
	seconds, _ := linux.CPULimit()
	return cpuLimit{seconds}
}

// reached reports whether the kernel has sent XCPU.
func (l *cpuLimit) reached() bool {
	const imprecise = 2 * time.Second // the second that the limit was raised by, and what the kernel's clocks differ by
	seconds, ok := linux.CPULimit()
	if !ok {
		return false
	}
	raised := seconds > l.seconds
	l.seconds = seconds
	used, limit := linux.CPUTime(), time.Duration(seconds)*time.Second
	return used >= limit || raised && used+imprecise >= limit
}
