//go:build !linux

package rundir

func sharedMemory() []place { return nil }

func sharedMemoryOfOthers() []string { return nil }
