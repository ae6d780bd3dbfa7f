package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/crankctl/crank/pkg/linux"
)

const (
	// maxRunning is how many of crank's threads run Go code at a time: it has never much to do.
	maxRunning = 4
	// spareThreads are for those that are in system calls meanwhile. A hundred clients that scrape while every call
	// takes a millisecond bring crank from 9 threads to 12, on two processors (to 16 without the gate of
	// sockets.Listener and with four collecting at a time); with these it has 16 or 17.
	spareThreads = 8
	// manyProcesses is what has to be free for crank to take threads before it needs them.
	manyProcesses = 64
)

// reserveThreads has the threads made that crank may need later. Where the kernel refuses one then, because an app has all that
// pids.max or ulimit -u allow, the Go runtime ends the program, and with PID 1 the container ends. The runtime keeps them, asleep.
// Where little is free already there are none to spare.
func reserveThreads() {
	running := min(runtime.GOMAXPROCS(0), maxRunning)
	if running < runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(running)
	}
	if !manyFree() {
		return
	}
	var holding sync.WaitGroup
	release := make(chan struct{})
	holding.Add(running + spareThreads)
	for range running + spareThreads {
		go func() { // ends below
			runtime.LockOSThread() // one for each of these goroutines
			defer runtime.UnlockOSThread()
			holding.Done()
			<-release
		}()
	}
	holding.Wait()
	close(release)
}

// manyFree reports whether neither the limit of the user nor those of the cgroups are near, as far as they can be seen.
func manyFree() bool {
	if linux.ProcessLimit() < manyProcesses {
		return false
	}
	for _, dir := range pidsGroups() {
		limit, err := readCount(filepath.Join(dir, "pids.max")) // "max" is no number: no limit
		if err != nil {
			continue
		}
		if used, err := readCount(filepath.Join(dir, "pids.current")); err != nil || limit-used < manyProcesses {
			return false
		}
	}
	return true
}

// pidsGroups returns the directories of crank's own cgroup, of either version, inside a container and outside.
func pidsGroups() []string {
	const v2, v1 = "/sys/fs/cgroup", "/sys/fs/cgroup/pids"
	groups := []string{v2, v1}
	own, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(own)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch controllers, path, _ := strings.Cut(rest, ":"); controllers {
		case "":
			groups = append(groups, filepath.Join(v2, path))
		case "pids":
			groups = append(groups, filepath.Join(v1, path))
		}
	}
	return groups
}

func readCount(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
