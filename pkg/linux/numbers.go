package linux

import "golang.org/x/sys/unix"

// What pkg/proc needs between fork and exec, where nothing but a raw system call may be made.
const (
	SysCloseRange = unix.SYS_CLOSE_RANGE
	SysStatx      = unix.SYS_STATX
)

// Statx is the answer of statx(2), which is the same on all architectures.
type Statx = unix.Statx_t
