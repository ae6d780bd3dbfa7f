package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
)

// gcPercent keeps crank's own memory small, which is charged to the app's container: 2 MiB less after
// 200 swaps than with Go's 100; 25 saves no more.
const gcPercent = 50

// prepareRuntime sets up the Go runtime as crank needs it from then on: with little memory, and with its threads.
func prepareRuntime(free int) {
	steerRuntime()
	reserveThreads(free)
}

// steerRuntime undoes what the environment's GOGC, GOMEMLIMIT and GOMAXPROCS have done to crank: they
// are in a container for the app, which still gets them. GODEBUG cannot be undone: it is read once,
// before main.
func steerRuntime() {
	debug.SetGCPercent(gcPercent)
	if os.Getenv("GOMEMLIMIT") != "" {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	if os.Getenv("GOMAXPROCS") != "" {
		runtime.SetDefaultGOMAXPROCS()
	}
}

const (
	idleTime  = 2 * time.Second // without anything to do
	idleFault = 4               // pages that may be mapped in it all the same
	worthIt   = 64              // pages that were mapped since the last time
)

// staySmall unmaps crank's program, two thirds of what it has in memory, each time that it has become idle: it is idle most of
// its life, and shares the container's memory with the app. To map again what a scrape needs takes some 150 page faults, a
// tenth of a millisecond. It returns once done is closed.
func staySmall(done <-chan struct{}, log logr.Logger) {
	ticker := time.NewTicker(idleTime)
	defer ticker.Stop()
	var dropped, last int64
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		faults := linux.MinorFaults()
		idle := faults-last <= idleFault
		last = faults
		if !idle || faults-dropped < worthIt {
			continue
		}
		if err := linux.DropProgram(); err != nil {
			log.V(1).Info("cannot give memory back", "cause", err.Error())
			return
		}
		dropped = linux.MinorFaults()
		last = dropped
	}
}
