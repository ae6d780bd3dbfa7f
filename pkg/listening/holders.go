package listening

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holders returns, for each socket by its inode, a process that has it among its descriptors (proc_pid_fd(5)), if one is found. It reads
// the descriptors of all processes once, and skips processes that it may not read.
func Holders(inodes []uint64) (pids map[uint64]int, err error) {
	pids = map[uint64]int{}
	err = eachName("/proc", func(name string) (more bool) {
		pid, err := strconv.Atoi(name)
		if err != nil {
			return true
		}
		held, _ := Holds([]int{pid}, inodes)
		for inode := range held {
			pids[inode] = pid
		}
		return len(pids) < len(inodes)
	})
	return pids, err
}

// Holds returns which of the inodes are sockets of the processes, and an error for those that could not be read. A process
// that has ended holds none.
func Holds(pids []int, inodes []uint64) (held map[uint64]bool, unreadable error) {
	held = map[uint64]bool{}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		err := eachName(dir, func(name string) (more bool) {
			target, err := os.Readlink(filepath.Join(dir, name))
			unreadable = denied(unreadable, err)
			if inode, ok := socketInode(target); ok && slices.Contains(inodes, inode) {
				held[inode] = true
			}
			return len(held) < len(inodes)
		})
		unreadable = denied(unreadable, err)
	}
	return held, unreadable
}

// namesAtATime is how many names of a directory are read at a time: a process may have a million descriptors.
const namesAtATime = 512

// eachName calls f for each name in a directory until it returns false.
func eachName(path string, f func(name string) (more bool)) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(namesAtATime)
		for _, name := range names {
			if !f(name) {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// denied keeps the first error that is about permissions.
func denied(known, err error) error {
	if known == nil && errors.Is(err, fs.ErrPermission) {
		return err
	}
	return known
}

// socketInode reads "socket:[12345]".
func socketInode(target string) (uint64, bool) {
	number, ok := strings.CutPrefix(target, "socket:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}
