package linux

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// MinorFaults returns how many pages this process has asked the kernel for that needed no reading of a disk.
func MinorFaults() int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return int64(usage.Minflt) //nolint:unconvert // it is an int32 on 32-bit machines
}

// DropProgram unmaps the pages of this program's own file that nobody can have changed: code and constants. They stay in the
// kernel's cache, and each is mapped again when it is needed (madvise(2), MADV_DONTNEED).
func DropProgram() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		// 00400000-008a1000 r-xp 00000000 fe:00 12345    /crank
		f := bytes.Fields(line)
		if len(f) != 6 || string(f[5]) != exe || f[1][1] == 'w' {
			continue
		}
		from, to, _ := bytes.Cut(f[0], []byte{'-'})
		begin, err1 := strconv.ParseUint(string(from), 16, 64)
		end, err2 := strconv.ParseUint(string(to), 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}
