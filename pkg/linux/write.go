package linux

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WithoutSignals calls write on a thread that blocks the signals with which the kernel answers a write, so that no handler gets them:
// XFSZ at the limit of file sizes (setrlimit(2), RLIMIT_FSIZE), and TTOU, to the whole process group of a background job, where the
// terminal has TOSTOP set (termios(3)). The write then fails with EFBIG, or succeeds. It blocks TTIN as well: to read from the terminal in
// the background fails with EIO. A signal that another process sends is delivered
// on another thread. write must do its writing in its own goroutine before it returns. WithoutSignals returns what write returns.
//
// terminal says that write uses a terminal. If it does not, and no limit is set, there is no signal to block, and the thread stays as it
// is: a goroutine with a thread of its own makes the Go runtime need one more, and without one (ulimit -u) the runtime ends the program.
func WithoutSignals(terminal bool, write func() error) error {
	if !terminal && !limitsFileSize() {
		return write()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	block, old := signalSet(unix.SIGXFSZ, unix.SIGTTOU, unix.SIGTTIN), unix.Sigset_t{}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		return os.NewSyscallError("rt_sigprocmask", err)
	}
	err := write()
	if errors.Is(err, unix.EFBIG) {
		takePending(unix.SIGXFSZ)
	}
	if restoreErr := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err == nil {
		err = os.NewSyscallError("rt_sigprocmask", restoreErr)
	}
	return err
}

// limitsFileSize reports whether this process may not write beyond some offset (RLIMIT_FSIZE), as far as can be known.
func limitsFileSize() bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) != nil || limit.Cur != unix.RLIM_INFINITY
}

// signalSet returns a set of signals below 32.
func signalSet(signals ...unix.Signal) (set unix.Sigset_t) {
	for _, signal := range signals {
		set.Val[0] |= 1 << (signal - 1)
	}
	return set
}

// takePending consumes a blocked pending signal, if there is one. The kernel sends XFSZ to the writing thread, and dequeues what
// is pending for a thread before what is pending for the process (kernel/signal.c, dequeue_signal). Nothing is pending where EFBIG has
// another cause, such as the largest file of the file system.
func takePending(signal unix.Signal) {
	const kernelSet = 8 // the size of the kernel's set in bytes
	set, now := signalSet(signal), unix.Timespec{}
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, uintptr(unsafe.Pointer(&now)), kernelSet, 0, 0)
}
