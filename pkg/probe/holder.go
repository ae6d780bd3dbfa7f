package probe

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

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
	own, err := listening.Holds([]int{os.Getpid()}, inodes)
	if err != nil {
		return fmt.Errorf("cannot find out who has answered: %w", err)
	}
	if len(own) > 0 {
		return wrongf("answered on a socket of crank's own (-bind or -http), which says nothing of the candidate")
	}
	held, unreadable := listening.Holds([]int{pid}, inodes)
	if len(held) < len(inodes) {
		held, unreadable = listening.Holds(p.processes.Members(generation), inodes)
	}
	if i := slices.IndexFunc(inodes, func(inode uint64) bool { return !held[inode] }); i >= 0 {
		return p.blame(inodes[i], generation, unreadable)
	}
	return nil
}

// blame says who holds an inode that the candidate does not hold, as far as can be seen. unreadable is
// why not all of the candidate's descriptors could be looked at.
func (p *Prober) blame(inode uint64, generation int, unreadable error) error {
	holders, err := listening.Holders([]uint64{inode})
	if err != nil {
		return fmt.Errorf("cannot find out who has answered: %w", err)
	}
	if holder := holders[inode]; holder != 0 {
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
