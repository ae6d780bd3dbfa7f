package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// The variables that steer every Go program are in the container's environment for the app. crank
// has read them too, before its main. Here it takes back those that would hurt it: GOGC=off, or a
// memory limit or number of threads that is right for the app alone. GODEBUG stays: it is read once.
func ignoreAppsRuntimeVariables() {
	if os.Getenv("GOMAXPROCS") != "" {
		runtime.SetDefaultGOMAXPROCS()
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	if os.Getenv("GOGC") != "" {
		debug.SetGCPercent(defaultGOGC)
	}
}

const defaultGOGC = 100
