package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes where this runs, as far as it matters.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%d cores, %s, Linux %s, %s", runtime.NumCPU(), runtime.GOARCH, release, runtime.Version())
}

// disturbed is the share of the CPUs that others may use before it is said.
const disturbed = 0.10

// watch measures how much of the CPUs others than this program and its processes have used.
type watch struct {
	began           time.Time
	busy, own, lost time.Duration
}

func startWatch() watch {
	busy, lost := busyTime()
	return watch{time.Now(), busy, ownTime(), lost}
}

// others returns the share of all CPUs since then that others had, and the share that the hypervisor took. All
// processes that were started have to have been waited for.
func (w watch) others() (others, stolen float64) {
	busy, lost := busyTime()
	all := time.Since(w.began).Seconds() * float64(runtime.NumCPU())
	// All of these are counted in ticks, and may be one off.
	within := func(share float64) float64 { return min(max(share, 0), 1) }
	return within((busy - w.busy - (ownTime() - w.own)).Seconds() / all), within((lost - w.lost).Seconds() / all)
}

// userHZ is how /proc/stat counts, on all of crank's architectures (proc_stat(5), sysconf(_SC_CLK_TCK)).
const userHZ = 100

// busyTime returns what all CPUs have done, and what the hypervisor has taken from them.
func busyTime() (busy, stolen time.Duration) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	return parseStat(text)
}

// parseStat reads "cpu user nice system idle iowait irq softirq steal guest guest_nice".
func parseStat(text []byte) (busy, stolen time.Duration) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	fmt.Sscanf(string(line), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal)
	const each = time.Second / userHZ
	return time.Duration(user+nice+system+irq+softirq) * each, time.Duration(steal) * each
}

// ownTime is what this process has used, and all those that have been waited for.
func ownTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += cpuTime(&u)
		}
	}
	return sum
}

func cpuTime(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
