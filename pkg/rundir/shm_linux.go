package rundir

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sharedMemory is writable even in a container with a read-only root and an arbitrary uid.
func sharedMemory() []place {
	space := pidNamespace()
	if space == "" {
		return nil
	}
	return []place{{path: inSharedMemory(strconv.Itoa(os.Geteuid()), space), private: true}}
}

// sharedMemoryOfOthers returns those that other users have made, each its own.
func sharedMemoryOfOthers() (paths []string) {
	found, _ := filepath.Glob(inSharedMemory("*", pidNamespace())) // an error is one of the pattern
	for _, path := range found {
		user, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "crank-"), "-")
		uid, err := strconv.Atoi(user)
		if err == nil && uid != os.Geteuid() && (place{path: path}).checkOwner(uid) == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// sharedMemoryDir is a world-writable tmpfs (shm_overview(7)). It is a variable so that other users' directories cannot disturb
// the tests.
var sharedMemoryDir = "/dev/shm"

func inSharedMemory(user, space string) string {
	return fmt.Sprintf("%s/crank-%s-%s", sharedMemoryDir, user, space)
}

// pidNamespace tells the containers of a pod apart, which may share one /dev/shm.
func pidNamespace() string {
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return strconv.FormatUint(stat.Ino, 10)
}
