package main

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// usr1 is the set {USR1}, as the kernel has it.
const usr1 = uint64(1) << (unix.SIGUSR1 - 1)

// signalled is `actor signalled`: it writes 8 bytes to stdout when it is ready, and then for each USR1 the time at
// which it came. It waits with rt_sigtimedwait(2), as tini does: the way through the handlers of the Go runtime
// would be longer than the one that is measured. For that USR1 has to be blocked in every thread from the start,
// so it executes itself once.
func signalled(args []string) error {
	if len(args) == 0 {
		runtime.LockOSThread()
		set := usr1
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0); errno != 0 {
			return errno
		}
		return syscall.Exec("/proc/self/exe", []string{"actor", "signalled", "blocked"}, os.Environ())
	}
	runtime.LockOSThread()
	set := usr1
	answer := make([]byte, 8)
	for {
		if _, err := syscall.Write(1, answer); err != nil {
			return err
		}
		_, _, errno := syscall.Syscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, 0, 8, 0, 0)
		for errno == syscall.EINTR {
			_, _, errno = syscall.Syscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, 0, 8, 0, 0)
		}
		came := now()
		if errno != 0 {
			return errno
		}
		binary.LittleEndian.PutUint64(answer, uint64(came))
	}
}
