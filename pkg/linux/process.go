// Package linux makes the few Linux calls that crank needs, and is the only importer of
// golang.org/x/sys.
package linux

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Retry calls f until it fails with something else than EINTR. Go installs its handlers with
// SA_RESTART, but not every call restarts (signal(7)).
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// WaitStatus is how a process ended.
type WaitStatus = unix.WaitStatus

// WaitAny reaps one child that has ended, whichever. pid is 0 where none has ended yet; more is
// false where there are no children at all (ECHILD).
func WaitAny() (pid int, status WaitStatus, more bool, err error) {
	err = retry(func() (err error) {
		pid, err = unix.Wait4(-1, &status, unix.WNOHANG|unix.WALL, nil)
		return err
	})
	if err == unix.ECHILD {
		return 0, 0, false, nil
	}
	return pid, status, err == nil, os.NewSyscallError("wait4", err)
}

// CanSetUser reports whether this process, and so its children, may become any user (CAP_SETUID, capabilities(7)).
func CanSetUser() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.Geteuid() == 0
	}
	return data[0].Effective&(1<<unix.CAP_SETUID) != 0
}

// SetSubreaper makes this process adopt orphaned descendants (prctl(2), PR_SET_CHILD_SUBREAPER).
func SetSubreaper() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// PidfdOpen returns a descriptor for a process (close-on-exec always, pidfd_open(2)).
func PidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	return fd, os.NewSyscallError("pidfd_open", err)
}

// PidfdID returns the number that identifies a process until the machine is rebooted: the inode of its pidfd, since Linux 6.9
// (before: ENOTSUP). LISTEN_PIDFDID is one.
func PidfdID(pid int) (id uint64, err error) {
	fd, err := PidfdOpen(pid)
	if err != nil {
		return 0, err
	}
	defer Close(fd)
	var fs unix.Statfs_t
	var stat unix.Stat_t
	switch err := errors.Join(unix.Fstatfs(fd, &fs), unix.Fstat(fd, &stat)); {
	case err != nil:
		return 0, os.NewSyscallError("fstat", err)
	case fs.Type != unix.PID_FS_MAGIC:
		return 0, unix.ENOTSUP
	}
	return stat.Ino, nil
}

// PidfdSignal signals the process of a pidfd. unsupported is true where the kernel or a seccomp
// profile does not let it.
func PidfdSignal(pidfd int, sig unix.Signal) (unsupported bool, err error) {
	err = unix.PidfdSendSignal(pidfd, sig, nil, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return true, err
	}
	return false, os.NewSyscallError("pidfd_send_signal", err)
}

// Kill is kill(2): a negative pid is a process group.
func Kill(pid int, sig unix.Signal) error {
	return os.NewSyscallError("kill", unix.Kill(pid, sig))
}

// CloseOnExecFrom marks every descriptor from first on close-on-exec. Kernels before 5.11 and
// sandboxes have no close_range(2); there /proc/self/fd is walked.
func CloseOnExecFrom(first int) error {
	err := unix.CloseRange(uint(first), ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd := atoi(e.Name()); fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// atoi returns -1 for what is no number.
func atoi(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// Close closes descriptors; -1 stands for none.
func Close(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Pipe returns a close-on-exec pipe. Flags such as O_NONBLOCK are those of pipe2(2).
func Pipe(flags int) (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC|flags)
	return p[0], p[1], os.NewSyscallError("pipe2", err)
}

// Read reads once.
func Read(fd int, p []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Read(fd, p)
		return err
	})
	return max(n, 0), os.NewSyscallError("read", err)
}

// ReadOnce opens a file, reads once, and closes it. A file of /proc gives all that it has at one read, if there is room for it;
// os.ReadFile makes ten system calls for that, most of them to find out that it cannot be waited for.
func ReadOnce(path string, p []byte) (n int, err error) {
	var fd int
	err = retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer Close(fd)
	return Read(fd, p)
}

// ReadSmall returns the first limit bytes of a file of /proc or of a cgroup, read by ReadOnce.
func ReadSmall(path string, limit int) ([]byte, error) {
	p := make([]byte, limit)
	n, err := ReadOnce(path, p)
	return p[:n], err
}

// StatusFlags returns the flags of an open file description (F_GETFL), O_NONBLOCK among them.
func StatusFlags(fd int) (int, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return flags, os.NewSyscallError("fcntl", err)
}

// MonotonicUsec returns CLOCK_MONOTONIC in microseconds, the clock of sd_notify(3)'s MONOTONIC_USEC.
func MonotonicUsec() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail: the clock exists and ts is valid
	return ts.Nano() / 1000
}

// CPULimit returns the soft limit of this process's CPU time in seconds (RLIMIT_CPU); ok is false if there is none.
//
// At the limit the kernel sends XCPU, then again each second, and raises the limit by a second each time
// (kernel/time/posix-cpu-timers.c, check_process_timers).
func CPULimit() (seconds uint64, ok bool) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &limit); err != nil || limit.Cur == unix.RLIM_INFINITY {
		return 0, false
	}
	return limit.Cur, true
}

// CPUTime returns how much CPU time this process has used.
func CPUTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // cannot fail, as in MonotonicUsec
	return time.Duration(ts.Nano())
}

// StopVirtualTimer stops the timer that sends VTALRM after some CPU time of this process. execve preserves it (setitimer(2)).
func StopVirtualTimer() {
	_, _ = unix.Setitimer(unix.ItimerVirtual, unix.Itimerval{}) // cannot fail: the timer exists and the value is valid
}

// ProcessLimit returns how many processes and threads the user may have (RLIMIT_NPROC); 0 where that cannot be known.
func ProcessLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		return 0
	}
	return limit.Cur
}
