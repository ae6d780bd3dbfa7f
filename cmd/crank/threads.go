package main

import (
	"runtime"
	"sync"
)

// The Go runtime makes a thread when it needs one, keeps it, and ends the program where the kernel refuses one
// (runtime/os_linux.go, newosproc): when an app has taken all that pids.max or ulimit -u allow. With PID 1 the container ends.
// So crank has those that it may need made early, while there are some.
const (
	// maxRunning is how many of crank's threads run Go code at a time: it never has much to do.
	maxRunning = 4
	// spareThreads are for those that are in system calls meanwhile. With every call taking a millisecond, ten clients that ask
	// for the metrics and ten for the status bring crank to 12 threads on two processors; with these it has 16 or 17.
	spareThreads = 8

	// fewProcesses are too few for the app to be left enough: crank takes a half. With one thread that runs Go code it needs 9.
	fewProcesses = 64
	// farProcesses are more than an app can fork before crank, which has just started it, has its threads.
	farProcesses = 10_000
)

// threads are what crank has made before it needs them.
type threads struct {
	running int // how many may run Go code at a time
	made    int // how many exist at least, apart from the runtime's own few
}

// planThreads returns what crank needs where so many more processes and threads can be made.
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

// reserveThreads has crank's threads made, and returns when they are there. free is freeProcesses.
func reserveThreads(free int) {
	plan := planThreads(free, runtime.GOMAXPROCS(0))
	runtime.GOMAXPROCS(plan.running) // from now on the runtime does not follow the cgroup's limit by itself
	var holding, ended sync.WaitGroup
	release := make(chan struct{})
	holding.Add(plan.made)
	for range plan.made {
		ended.Go(func() {
			runtime.LockOSThread() // one for each of these goroutines
			defer runtime.UnlockOSThread()
			holding.Done()
			<-release
		})
	}
	holding.Wait()
	close(release)
	ended.Wait() // until then the runtime may want one more
}
