package notify

import (
	"syscall"
	"unsafe"
)

// disconnect takes the peer of a datagram socket away: connect(2) with AF_UNSPEC, which is zero and for
// which package syscall has no type.
func disconnect(fd int) error {
	var address syscall.RawSockaddr
	_, _, errno := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
	if errno != 0 {
		return errno
	}
	return nil
}
