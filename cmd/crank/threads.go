package main

import (
	"runtime"
	"sync"
)

// The Go runtime creates a thread when it needs one, keeps it, and ends the program if the kernel refuses one
// (runtime/os_linux.go, newosproc), as it does once an app has used up pids.max or ulimit -u. With PID 1 the container ends.
// So crank creates the threads that it may need early, while it still can.
const (
	// maxRunning is how many of crank's threads may run Go code concurrently: it never has much to do.
	maxRunning = 4
	// spareThreads allow for threads in system calls. With every call taking a millisecond, ten clients that request
	// the metrics and ten the status drive crank to 12 threads on two processors; with the spares it has 16 or 17.
	spareThreads = 8

	// fewProcesses is the number of free processes below which crank might not leave the app enough: it then takes half at most.
	// With one thread running Go code it needs 9.
	fewProcesses = 64
	// farProcesses is more than an app can fork before crank, which just started it, has its threads.
	farProcesses = 10_000
)

// threads describes the threads that crank creates before it needs them.
type threads struct {
	running int // how many may run Go code concurrently
	made    int // how many exist at least, not counting the runtime's own few
}

// planThreads returns what crank needs, given how many more processes and threads can be created.
func planThreads(free, processors int) threads {
	running := min(processors, maxRunning)
	if free < fewProcesses {
		running = min(processors, 2)
	}
	if share := max(free, 0) / 2; share < running+spareThreads {
		return threads{running: 1, made: share}
	}
	return threads{running, running + spareThreads}
}

// reserveThreads creates crank's threads and returns when they exist. free is what freeProcesses returned.
func reserveThreads(free int) {
	plan := planThreads(free, runtime.GOMAXPROCS(0))
	runtime.GOMAXPROCS(plan.running) // from now on the runtime no longer follows the cgroup's limit
	var holding, ended sync.WaitGroup
	release := make(chan struct{})
	holding.Add(plan.made)
	for range plan.made {
		ended.Go(func() {
			runtime.LockOSThread() // one thread per goroutine
			defer runtime.UnlockOSThread()
			holding.Done()
			<-release
		})
	}
	holding.Wait()
	close(release)
	ended.Wait() // until then the runtime may need one more
}
