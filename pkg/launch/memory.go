package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/proc"
)

// Two generations run at once during a swap. With memory.oom.group set, as Kubernetes does on cgroup
// v2, running out of memory then ends the whole container, the generation that serves included
// (https://github.com/kubernetes/kubernetes/issues/117793).

// Room returns an error where a second generation as big as the biggest one that runs does not fit. It
// is for the supervisor's goroutine.
func (l *Launcher) Room() error {
	free, ok := MemoryHeadroom()
	if !ok {
		return nil
	}
	need := int64(0)
	for _, ch := range l.children {
		need = max(need, ch.memory())
	}
	if need <= free {
		return nil
	}
	return fmt.Errorf("the memory limit leaves %d MiB, and the generation that serves has %d MiB: with two of them the kernel may end the whole container", free>>20, need>>20)
}

// memory returns the resident memory of the generation's main process and of all processes known to belong to it.
func (ch *child) memory() int64 {
	total := proc.ResidentBytes(ch.PID())
	members, _, _ := ch.membersNow()
	for _, e := range members {
		total += proc.ResidentBytes(e.PID)
	}
	return total
}

// MemoryHeadroom returns how many bytes crank's own cgroup (v2) may still use; page cache that is not
// in use counts as free, as it does for the kubelet. ok is false where there is no limit.
func MemoryHeadroom() (free int64, ok bool) {
	return memoryHeadroom("/sys/fs/cgroup", "/proc/self/cgroup")
}

func memoryHeadroom(root, self string) (free int64, ok bool) {
	dir := root
	// In a container the cgroup namespace makes the own group the root ("0::/").
	if b, err := linux.ReadSmall(self, maxSmall); err == nil {
		for line := range strings.Lines(string(b)) {
			if own, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
				dir = path.Join(root, own)
			}
		}
	}
	limit, ok := readNumber(path.Join(dir, "memory.max")) // "max" is no number: no limit
	if !ok {
		return 0, false
	}
	used, ok := readNumber(path.Join(dir, "memory.current"))
	if !ok {
		return 0, false
	}
	return limit - used + statField(path.Join(dir, "memory.stat"), "inactive_file"), true
}

// maxSmall exceeds the size of every file of a cgroup that is read here: memory.stat has some sixty lines.
const maxSmall = 16 << 10

func readNumber(file string) (int64, bool) {
	b, err := linux.ReadSmall(file, maxSmall)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

func statField(file, field string) int64 {
	b, err := linux.ReadSmall(file, maxSmall)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == field {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

// restoreOOMScore gives the generation's processes crank's own score. Processes that are not known to belong to it yet get it later, from
// another goroutine.
func (ch *child) restoreOOMScore() {
	score := ch.l.oomScore()
	members, unknown, _ := ch.membersNow()
	ch.setOOMScore(ch.PID(), score)
	for _, e := range members {
		ch.setOOMScore(e.PID, score)
	}
	if unknown == nil {
		return
	}
	ch.l.closing.Go(func() {
		for _, e := range ch.members() {
			ch.setOOMScore(e.PID, score)
		}
	})
}

func (ch *child) setOOMScore(pid int, score string) {
	if err := proc.SetOOMScoreAdj(pid, score); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		ch.l.cfg.Log.Error(err, "cannot give the OOM score back: the kernel's first choice stays this process", "generation", ch.generation, "pid", pid)
	}
}
