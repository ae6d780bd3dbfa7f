package faults

import "slices"

// faults is the table.
func faults() []*fault {
	return slices.Concat(kernelFaults(), fileFaults(), streamFaults(), floodFaults(), appFaults(), sharedFaults(), orphanFaults())
}
