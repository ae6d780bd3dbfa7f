package main

import (
	"bytes"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// freeProcesses returns how many more processes and threads the limits of the cgroups (pids.max) and of the user (ulimit -u)
// allow: math.MaxInt where there is no limit.
func freeProcesses() int {
	free := math.MaxInt
	for _, dir := range pidsGroups() {
		limit, ok := readCount(dir + "/pids.max") // "max", not a number: no limit
		if !ok {
			continue
		}
		if used, ok := readCount(dir + "/pids.current"); ok {
			free = min(free, limit-used)
		}
	}
	if limit := linux.ProcessLimit(); limit <= math.MaxInt32 {
		free = min(free, int(limit)-ownThreads(int(limit)))
	}
	return free
}

// maxDepth limits how many cgroups above crank's own are read.
const maxDepth = 16

// pidsGroups returns the directories of crank's own cgroup and of its ancestors, in the hierarchy with the pids controller
// (cgroups(7)), and the root of what a container sees. Ancestors that it does not see are included, and do not exist.
func pidsGroups() []string {
	root, own := "/sys/fs/cgroup", "/"
	for line := range strings.Lines(string(readStart("/proc/self/cgroup"))) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch controllers, in, _ := strings.Cut(rest, ":"); controllers {
		case "": // version 2, which comes last
			if !strings.HasSuffix(root, "/pids") {
				own = in
			}
		case "pids":
			root, own = "/sys/fs/cgroup/pids", in
		}
	}
	var groups []string
	for range maxDepth {
		groups = append(groups, path.Join(root, own))
		if own == "/" || own == "." {
			return groups
		}
		own = path.Dir(own)
	}
	return append(groups, root)
}

// maxLooked limits how many processes are examined to find those of crank's own user.
const maxLooked = 10_000

// ownThreads returns how many processes and threads crank's user has. Where the limit is far away it returns a larger number that
// costs less to find: those of the whole machine (proc_loadavg(5)). Otherwise it counts those that crank sees, which misses the user's
// processes in other containers.
func ownThreads(limit int) int {
	if fields := bytes.Fields(readStart("/proc/loadavg")); len(fields) > 3 {
		_, total, _ := bytes.Cut(fields[3], []byte("/"))
		if all, err := strconv.Atoi(string(total)); err == nil && limit-all >= fewProcesses {
			return all
		}
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxLooked)
	count, own := 0, os.Geteuid()
	for _, name := range names {
		var info syscall.Stat_t
		if name[0] < '0' || name[0] > '9' || syscall.Stat("/proc/"+name+"/task", &info) != nil || int(info.Uid) != own {
			continue
		}
		count += max(int(info.Nlink)-2, 1) // a directory for each thread (fs/proc/base.c, proc_task_getattr)
	}
	return count
}

func readCount(name string) (n int, ok bool) {
	n, err := strconv.Atoi(string(bytes.TrimSpace(readStart(name))))
	return n, err == nil
}

// readStart returns the first 4 KiB of a file, nothing where it cannot be read.
func readStart(name string) []byte {
	content, _ := linux.ReadSmall(name, 4<<10)
	return content
}
