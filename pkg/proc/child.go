package proc

import (
	"syscall"
	"unsafe"

	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/linux"
)

// step says in the child's report what failed.
type step uint32

const (
	stepGroup step = iota
	stepFiles
	stepDir // the working directory cannot be entered
	stepNoNewPrivs
	stepLimit
	stepFind        // none of the candidates exists
	stepLease       // another process holds a lease on the program
	stepInterpreter // the program exists, its interpreter does not
	stepRead        // the program is not for this machine, and cannot be read to see whether it is text
	stepShell       // the program is text without a #! line, and there is no shell to run it
	stepExec
)

func (s step) String() string {
	return [...]string{"setpgid", "pass descriptors to", "enter", "prctl(PR_SET_NO_NEW_PRIVS) for", "setrlimit for",
		"find", "execute", "execute", "execute", "execute", "execute"}[s]
}

// report is what the child writes into the pipe.
type report struct {
	step      step
	errno     syscall.Errno
	candidate int32 // index into child.paths
	length    int32 // how much of head there is
	head      [execvp.HeadSize]byte
}

// run is the child: one thread, with a copy of the parent's memory, in an unknown state. No
// allocation, no lock, no growth of the stack, no call but RawSyscall, and no store of a pointer
// (the garbage collector's write barrier may be on).
//
// It closes the parent's descriptors before the first step that may hang. While the child holds them, a client of crank waits for
// the end of its connection, and another instance finds the control socket alive.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) run() {
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETPGID, 0, 0, 0); errno != 0 {
		c.fail(stepGroup, errno)
	}
	c.resetSignals()
	if c.terminal >= 0 {
		c.takeTerminal(pid)
	}
	if c.oomScore != nil {
		c.writeOOMScore()
	}
	c.placeFiles()
	c.closeOthers()
	if c.dir != nil {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); errno != 0 {
			c.fail(stepDir, errno)
		}
	}
	if c.noNewPriv {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			c.fail(stepNoNewPrivs, errno)
		}
	}
	for i := 0; i < len(c.limits); i++ {
		l := &c.limits[i]
		if !l.set {
			continue
		}
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, l.resource, uintptr(unsafe.Pointer(&l.value)), 0, 0, 0); errno != 0 {
			c.fail(stepLimit, errno)
		}
	}
	for i := 0; i < len(c.pids); i++ {
		if c.pids[i].text != nil {
			c.pids[i].write(int(pid))
		}
	}
	c.execute()
}

// resetSignals gives every signal its default action, or has it ignored as it was when crank was started. What crank ignores
// would be ignored by the app as well; what it handles, the runtime has reset (clearSignalHandlers).
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) resetSignals() {
	for n := uintptr(1); n <= 64; n++ {
		if n == 32 { // SIGCANCEL of the C library: the runtime leaves it as it found it (runtime/signal_unix.go, sigInstallGoHandler)
			continue
		}
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&c.byDefault)), 0, 8, 0, 0)
	}
	for i, ignored := range c.ignore {
		if ignored { // HUP is 1, INT is 2
			syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(i)+1, uintptr(unsafe.Pointer(&c.action)), 0, 8, 0, 0)
		}
	}
}

// takeTerminal makes the child's group, which is pid, the terminal's foreground. SIGTTOU is blocked for it, not ignored: an ignored
// signal would survive execve.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) takeTerminal(pid uintptr) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigBlock, uintptr(unsafe.Pointer(&c.sigttou)), uintptr(unsafe.Pointer(&c.oldmask)), 8, 0, 0)
	c.pgrp = int32(pid)
	syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(c.terminal), syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&c.pgrp)))
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&c.oldmask)), 0, 8, 0, 0)
}

const (
	sigIgn          = 1
	sigBlock        = 0
	sigSetmask      = 2
	prSetNoNewPrivs = 38
	rlimitCPU       = 0
	rlimitNofile    = 7
)

// writeOOMScore is best effort: with a read-only /proc the app runs as it would without crank.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) writeOOMScore() {
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(c.oomPath)), syscall.O_WRONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return
	}
	syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.oomScore))), uintptr(len(c.oomScore)))
	syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
}

const atFDCWD = ^uintptr(99) // -100

// placeFiles first moves what would be overwritten above the range, then puts each in its place.
// dup3 clears close-on-exec on the copy (without its flag); one that is in place already needs that
// done.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) placeFiles() {
	n := len(c.files)
	if c.pipe < n {
		fd, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(c.pipe), fDupfdCloexec, uintptr(n))
		if errno != 0 {
			c.fail(stepFiles, errno)
		}
		c.pipe = int(fd)
	}
	for i := 0; i < n; i++ {
		if c.files[i] >= 0 && c.files[i] < n && c.files[i] != i {
			fd, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(c.files[i]), fDupfdCloexec, uintptr(n))
			if errno != 0 {
				c.fail(stepFiles, errno)
			}
			c.files[i] = int(fd)
		}
	}
	for i := 0; i < n; i++ {
		var errno syscall.Errno
		switch c.files[i] {
		case -1:
			syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(i), 0, 0)
		case i:
			_, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(i), syscall.F_SETFD, 0)
		default:
			_, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(c.files[i]), uintptr(i), 0)
		}
		if errno != 0 {
			c.fail(stepFiles, errno)
		}
	}
}

const fDupfdCloexec = 1030

// closeOthers closes all of the parent's descriptors except the pipe, which it moves right behind the child's descriptors. On kernels
// without close_range(2) (before 5.9), execve closes them later.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) closeOthers() {
	n := len(c.files)
	if c.pipe != n {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_DUP3, uintptr(c.pipe), uintptr(n), syscall.O_CLOEXEC); errno != 0 {
			c.fail(stepFiles, errno)
		}
		c.pipe = n
	}
	syscall.RawSyscall(linux.SysCloseRange, uintptr(n)+1, uintptr(^uint32(0)), 0)
}

// write completes the entry, as a C string.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (e *pidEntry) write(pid int) {
	digits := 1
	for n := pid; n >= 10; n /= 10 {
		digits++
	}
	end := e.offset + digits
	e.text[end] = 0
	for i := end - 1; i >= e.offset; i-- {
		e.text[i] = byte('0' + pid%10)
		pid /= 10
	}
}

// execute executes the first candidate that it can, as execvp(3) does. If there is none, it reports one that exists, preferring a file
// that may not be executed over one whose interpreter does not exist. Without a search there is one candidate, and the result of
// execve is the answer.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) execute() {
	refused, broken := -1, -1
	why, regular := syscall.Errno(0), false
	for i := 0; i < len(c.paths); i++ {
		c.report.candidate = int32(i)
		kind := c.kindOf(i)
		errno := c.try(i, kind)
		missing := errno == syscall.ENOENT || errno == syscall.ENOTDIR
		switch {
		case missing && kind == syscall.S_IFREG:
			broken = i
		case !c.search, !execvp.GoesOn(errno):
			c.fail(stepExec, errno)
		case !missing && !regular:
			refused, why, regular = i, errno, kind == syscall.S_IFREG
		}
	}
	if refused >= 0 && (regular || broken < 0) {
		c.report.candidate = int32(refused)
		c.fail(stepExec, why)
	}
	if broken >= 0 {
		c.report.candidate = int32(broken)
		c.fail(stepInterpreter, syscall.ENOENT)
	}
	c.fail(stepFind, syscall.ENOENT)
}

// The kinds of a candidate, in addition to the S_IFMT of its mode.
const (
	kindNone    = 0          // it does not exist, or statx(2) fails on it
	kindUnknown = 1<<32 - 1  // no statx(2): the kernel is older than 4.11, or seccomp denies it
	statxType   = 0x00000001 // STATX_TYPE
)

// kindOf returns the kind of a candidate.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) kindOf(i int) (kind uint32) {
	_, _, errno := syscall.RawSyscall6(linux.SysStatx, atFDCWD, uintptr(unsafe.Pointer(c.paths[i])), 0, statxType, uintptr(unsafe.Pointer(&c.statx)), 0)
	switch errno {
	case 0:
		return uint32(c.statx.Mode) & syscall.S_IFMT
	case syscall.ENOSYS, syscall.EPERM:
		return kindUnknown
	}
	return kindNone
}

// try executes a candidate, or the shell with it, and returns the error of execve. It keeps the file open meanwhile, so that no write lease can be taken on
// it. If a lease is held already, the open, which does not block, fails and ends the search: the next candidate is not the one that
// was meant. Other errors of the open are left to execve: a file may be executable but not readable. Only regular files can be
// executed; others are not opened, since that can have side effects.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) try(i int, kind uint32) syscall.Errno {
	path, held, failed := uintptr(unsafe.Pointer(c.paths[i])), uintptr(0), syscall.EACCES
	if kind == syscall.S_IFREG {
		if held, failed = openNow(path); failed == syscall.EWOULDBLOCK {
			c.fail(stepLease, failed)
		}
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, path, uintptr(unsafe.Pointer(c.argv)), uintptr(unsafe.Pointer(c.env)))
	if errno == syscall.ENOEXEC && failed != 0 { // it is a regular file: otherwise the error is EACCES
		held, failed = openNow(path)
	}
	if failed == 0 {
		if errno == syscall.ENOEXEC || errno == syscall.ENOENT {
			failed = c.readHead(held)
		}
		syscall.RawSyscall(syscall.SYS_CLOSE, held, 0, 0)
	}
	if errno == syscall.ENOEXEC {
		c.executeShell(i, failed)
	}
	return errno
}

//go:norace
//go:nocheckptr
//go:nosplit
func openNow(path uintptr) (fd uintptr, errno syscall.Errno) {
	fd, _, errno = syscall.RawSyscall6(syscall.SYS_OPENAT, atFDCWD, path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0, 0, 0)
	return fd, errno
}

// readHead reads the start of the file, opened before execve refused it: another file may have its name by now.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) readHead(fd uintptr) syscall.Errno {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&c.report.head)), execvp.HeadSize)
	c.report.length = int32(n)
	if errno != 0 {
		c.report.length = 0
	}
	return errno
}

// executeShell executes the shell with a candidate that execve refused with ENOEXEC, and returns only if the candidate is not text.
// failed is the error from reading it. The pid stays the same, so LISTEN_PID is valid for the shell.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) executeShell(i int, failed syscall.Errno) {
	if failed != 0 {
		c.fail(stepRead, failed)
	}
	if !execvp.IsText(c.report.head[:c.report.length]) {
		return
	}
	c.shell[1] = uintptr(unsafe.Pointer(c.paths[i])) // which paths keeps alive
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(c.shellPath)), uintptr(unsafe.Pointer(unsafe.SliceData(c.shell))),
		uintptr(unsafe.Pointer(c.env)))
	c.fail(stepShell, errno)
}

// fail reports to the parent and ends the child.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (c *child) fail(s step, errno syscall.Errno) {
	c.report.step = s
	c.report.errno = errno
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(c.pipe), uintptr(unsafe.Pointer(&c.report)), unsafe.Sizeof(c.report))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
