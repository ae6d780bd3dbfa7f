package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// HungUp reports whether fd, which was a terminal, is one no more: every use of a terminal that was
// hung up fails with EIO (tty_ioctl(4), TIOCVHANGUP).
func HungUp(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == unix.EIO
}

// Foreground returns the foreground group of the controlling terminal (tcgetpgrp(3)); 0 where fd is not that terminal, or the group is of
// an outer pid namespace.
func Foreground(fd int) (group int) {
	id, err := unix.IoctlGetUint32(fd, unix.TIOCGPGRP) // a pid_t has 32 bits everywhere
	if err != nil {
		return 0
	}
	return int(id)
}

// HasForeground reports whether this process is in the terminal's foreground. A background job is not, and must leave the terminal alone.
func HasForeground(fd int) bool {
	group := Foreground(fd)
	if group == 0 { // this process's own may be of an outer pid namespace as well, and another one
		return unix.Getpgrp() == 0 && mayRead()
	}
	return group == unix.Getpgrp()
}

// mayRead reports whether this process may read from its controlling terminal. In the background that is SIGTTIN, or EIO where this is blocked.
func mayRead() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer Close(tty)
	return WithoutSignals(true, func() error {
		_, err := unix.Read(tty, nil)
		return err
	}) != unix.EIO
}

// IsEmptyGroup reports whether no process is left in a process group.
func IsEmptyGroup(group int) bool { return group > 1 && unix.Kill(-group, 0) == unix.ESRCH }

// IsPipe reports whether fd is a pipe or a FIFO.
func IsPipe(fd int) bool {
	var info unix.Stat_t
	return unix.Fstat(fd, &info) == nil && info.Mode&unix.S_IFMT == unix.S_IFIFO
}

// TakeTerminal makes this process's group the foreground group of its controlling terminal.
func TakeTerminal(fd int) error { return GiveTerminal(fd, unix.Getpgrp()) }

// GiveTerminal makes a process group of this session the foreground group of its controlling terminal. A caller in the background gets
// SIGTTOU for that, and a handler would make the kernel restart the call for ever.
func GiveTerminal(fd, group int) error {
	return WithoutSignals(true, func() error {
		return os.NewSyscallError("ioctl TIOCSPGRP", unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, group))
	})
}
