package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/test/pid1/spec"
)

// setup is `inside setup SPEC`: it makes of its process what the spec says, and executes.
func setup(args []string) (int, error) {
	runtime.LockOSThread() // the signal mask and the capabilities are a thread's
	var s spec.Spec
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return 0, err
	}
	if err := prepare(&s); err != nil {
		return 0, err
	}
	env := s.Env
	if env == nil {
		env = []string{}
	}
	return 0, fmt.Errorf("cannot execute %s: %w", s.Argv[0], syscall.Exec(s.Argv[0], s.Argv, env))
}

func prepare(s *spec.Spec) error {
	for _, step := range []struct {
		name string
		do   func(*spec.Spec) error
	}{
		{"mounts", mounts}, {"terminal", terminal}, {"limits", limits}, {"signals", signals}, {"descriptors", descriptors}, {"directory", directory},
	} {
		if err := step.do(s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	// The first argument of the init under test must not gain anything from the preparation.
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
}

// mounts gives the container a /proc of its own, or none, and its own empty /run and /dev/shm.
func mounts(s *spec.Spec) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/dev/shm"} {
		if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=755"); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	if s.NoProc {
		return unix.Mount("none", "/proc", "tmpfs", 0, "size=4k")
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if s.ReadOnly {
		return unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	return nil
}

// terminal makes stdin the controlling terminal of a new session.
func terminal(s *spec.Spec) error {
	if !s.Terminal {
		return nil
	}
	if _, err := unix.Setsid(); err != nil {
		return err
	}
	return unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)
}

func directory(s *spec.Spec) error {
	if s.Dir == "" {
		return nil
	}
	return os.Chdir(s.Dir)
}

func limits(s *spec.Spec) error {
	for resource, l := range s.Limits {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: l[0], Max: l[1]}); err != nil {
			return fmt.Errorf("limit %d: %w", resource, err)
		}
	}
	if s.Umask != 0 {
		unix.Umask(s.Umask)
	}
	if s.Nice != 0 {
		return unix.Setpriority(unix.PRIO_PROCESS, 0, s.Nice)
	}
	return nil
}

func signals(s *spec.Spec) error {
	for _, sig := range s.Ignore {
		if err := ignore(sig); err != nil {
			return err
		}
	}
	return block(s.Block...)
}

// ignore asks the kernel: signal.Ignore knows nothing of 32.
func ignore(sig syscall.Signal) error {
	action := [4]uintptr{1} // SIG_IGN, no flags, no mask
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
		return fmt.Errorf("cannot ignore signal %d: %w", sig, errno)
	}
	return nil
}

// block sets the signal mask of this thread, which execve(2) keeps.
func block(signals ...syscall.Signal) error {
	var set unix.Sigset_t
	for _, sig := range signals {
		n := uint(sig - 1)
		const bits = 64 // of a word; the tests run on 64-bit machines only
		set.Val[n/bits] |= 1 << (n % bits)
	}
	return unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil)
}

func descriptors(s *spec.Spec) error {
	for range s.Leak {
		if _, err := unix.Open("/dev/null", unix.O_RDWR, 0); err != nil {
			return err
		}
	}
	for _, fd := range s.Close {
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	for _, fd := range s.CloseOnExec {
		unix.CloseOnExec(fd)
	}
	return nil
}

// outer is `inside outer SPEC`: it is PID 1, starts `inside setup SPEC`, waits for that one alone,
// and reports on descriptor 3 how it ended and which processes were left at that moment.
func outer(args []string) (int, error) {
	runtime.LockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"inside", "setup", args[0]}, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2, 3, 4}, Env: os.Environ(),
	})
	if err != nil {
		return 0, err
	}
	unix.Close(4) // end of file there means that the init under test was executed
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if status.Signaled() {
		fmt.Fprintf(os.NewFile(3, "report"), "killed %d\n", status.Signal())
		return 0, nil
	}
	fmt.Fprintf(os.NewFile(3, "report"), "exited %d\n", status.ExitStatus())
	return status.ExitStatus(), nil
}
