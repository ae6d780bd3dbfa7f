package linux

import "golang.org/x/sys/unix"

// For pkg/proc, which may make only raw system calls between fork and exec.
const (
	SysCloseRange = unix.SYS_CLOSE_RANGE
	SysStatx      = unix.SYS_STATX
)

// Statx is the result of statx(2), which is the same on all architectures.
type Statx = unix.Statx_t
