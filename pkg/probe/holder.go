package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crankctl/crank/pkg/listening"
)

// Who has answered? A connection was taken by a listening socket, which /proc/net/tcp names by its inode; the
// processes that hold it have that inode among their descriptors in /proc/PID/fd (proc_pid_fd(5)). That one generation
// answers on the port of another is how a probe lies: with SO_REUSEPORT both can have it, and where the candidate
// cannot bind it, the old one has it still.

// verify returns an error unless the candidate itself listens on the address that has answered.
func (p *Prober) verify(answered netip.AddrPort, generation, pid int) error {
	sockets, err := listening.On(answered)
	if err != nil {
		return fmt.Errorf("cannot find out who has answered: %w", err)
	}
	var inodes []uint64
	for _, s := range sockets {
		inodes = append(inodes, s.Inode)
	}
	if len(inodes) == 0 {
		return wrongf("answered by something that does not listen on %v in this network namespace", answered)
	}
	own, err := holds([]int{os.Getpid()}, inodes)
	if err != nil {
		return fmt.Errorf("cannot find out who has answered: %w", err)
	}
	if len(own) > 0 {
		return wrongf("answered on a socket of crank's own (-bind or -http), which says nothing of the candidate")
	}
	held, unreadable := holds([]int{pid}, inodes)
	if len(held) < len(inodes) {
		held, unreadable = holds(p.processes.Members(generation), inodes)
	}
	if i := slices.IndexFunc(inodes, func(inode uint64) bool { return !held[inode] }); i >= 0 {
		return p.blame(inodes[i], generation, unreadable)
	}
	return nil
}

// blame says who holds an inode that the candidate does not hold, as far as can be seen. unreadable is
// why not all of the candidate's descriptors could be looked at.
func (p *Prober) blame(inode uint64, generation int, unreadable error) error {
	holder := 0
	err := eachName("/proc", func(name string) (more bool) {
		pid, err := strconv.Atoi(name)
		if err != nil {
			return true
		}
		if held, _ := holds([]int{pid}, []uint64{inode}); held[inode] {
			holder = pid // processes that cannot be read are skipped
		}
		return holder == 0
	})
	if err != nil {
		return fmt.Errorf("cannot find out who has answered: %w", err)
	}
	if holder != 0 {
		switch owner := p.processes.Owner(holder); owner {
		case generation:
			return nil // it was started after Members looked
		case 0:
			return wrongf("answered by pid %d, not the candidate", holder)
		default:
			return wrongf("answered by generation %d, not the candidate", owner)
		}
	}
	if unreadable != nil {
		return fmt.Errorf("cannot see whether the candidate has answered: %w: it runs as another user or hides itself; "+
			"give crank CAP_SYS_PTRACE, or use -ready notify or exec:COMMAND", unreadable)
	}
	return wrongf("answered by a process outside of crank")
}

// holds returns which of the inodes are sockets of the processes, and an error for what could not be read. A process
// that is gone holds nothing.
func holds(pids []int, inodes []uint64) (held map[uint64]bool, unreadable error) {
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
