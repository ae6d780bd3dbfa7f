//go:build !linux

package guard

// guards is false where there are no subreapers. There only crankctl is tested, which starts nothing.
const guards = false

func guard() int { return 0 }
