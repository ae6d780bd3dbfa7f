// Package disguise makes a process show an environment in /proc/PID/environ other than the one it was executed with. It needs only the
// kernel's usual configuration (CONFIG_CHECKPOINT_RESTORE), and no privilege.
package disguise

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// What Environ can show.
const (
	Huge  = "huge"  // 64 GiB of zeros, which take no memory except in the reader
	Empty = "empty" // nothing, although there is an environment, as for a moment during execve(2)
)

const size = 64 << 30

// Environ changes what this process shows, until it ends.
func Environ(what string) error {
	at, _, errno := syscall.RawSyscall6(syscall.SYS_MMAP, 0, size, syscall.PROT_READ,
		syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_NORESERVE, ^uintptr(0), 0)
	if errno != 0 {
		return fmt.Errorf("mmap: %w", errno)
	}
	switch what {
	case Huge:
		return environAt(uint64(at), uint64(at)+size)
	case Empty:
		if err := environAt(uint64(at), uint64(at)+size); err != nil {
			return err
		}
		if _, _, errno = syscall.RawSyscall(syscall.SYS_MUNMAP, at, size, 0); errno != 0 {
			return fmt.Errorf("munmap: %w", errno)
		}
		return nil
	}
	return fmt.Errorf("cannot show %q", what)
}

// memoryMap is struct prctl_mm_map of the kernel's include/uapi/linux/prctl.h.
type memoryMap struct {
	startCode, endCode, startData, endData, startBrk, brk, startStack uint64
	argStart, argEnd, envStart, envEnd                                uint64
	auxv                                                              uint64
	auxvSize                                                          uint32
	exe                                                               int32
}

// environAt moves the environment, and leaves everything else where it is.
func environAt(start, end uint64) error {
	const prSetMM, prSetMMMap, fields = 35, 14, 49
	line, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	f := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(f) < fields {
		return fmt.Errorf("/proc/self/stat has %d fields", len(f))
	}
	at := func(field int) uint64 { n, _ := strconv.ParseUint(string(f[field-3]), 10, 64); return n } // as proc_pid_stat(5) numbers them
	brk, _, _ := syscall.RawSyscall(syscall.SYS_BRK, 0, 0, 0)
	m := memoryMap{
		startCode: at(26), endCode: at(27), startStack: at(28), startData: at(45), endData: at(46), startBrk: at(47), brk: uint64(brk),
		argStart: at(48), argEnd: at(49), envStart: start, envEnd: end, exe: -1,
	}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetMM, prSetMMMap, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), 0, 0); errno != 0 {
		return fmt.Errorf("prctl(PR_SET_MM_MAP): %w", errno)
	}
	return nil
}
