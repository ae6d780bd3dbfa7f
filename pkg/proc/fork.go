package proc

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/origin"
)

// Why not syscall.ForkExec: LISTEN_PID must hold the child's own pid, so a step between fork and
// exec is needed that Go has no hook for. The usual answer, executing crank itself first and then
// the app, costs a second start of a Go program each time; the terminal's foreground group, the
// OOM score and no_new_privs would have to be set there as well. So the child's side is written
// out below, in the manner of syscall.forkAndExecInChild, with the three runtime hooks that the
// runtime exports for exactly this use.
//
//	parent                           child
//	------                           -----
//	ForkLock, beforeFork
//	clone ─────────────────────────► afterForkInChild (handlers to default, mask as inherited)
//	  :                              group, terminal, OOM score, directory, limits, descriptors
//	  : (vfork: waits)               a step or execve failed: step and errno into the pipe, exit
//	  :                              execve succeeded: that closes the pipe (close-on-exec)
//	afterFork, ForkLock
//	read the pipe ◄──── step, errno, or end of file
//
// On amd64 and arm64 the child shares the parent's memory, as with vfork(2), and clone returns once
// the child has executed or exited: no page tables are copied, and no page is copied when either
// side writes to it (fork_vfork.go). On the others it has a copy of the memory, and clone returns at
// once (fork_copy.go). Nothing else depends on that: the outcome is read from the pipe everywhere, and
// not from the shared memory, since qemu-user makes a plain fork of a vfork (do_fork in
// linux-user/syscall.c). A failed execve would pass for an app that exits 127.
//
// The parent is blocked from clone to execve. It follows that a Process that Start returned already
// runs the app: a signal cannot meet the child before its execve. If the execve hangs, say on a
// network file system, so does Start. With vfork its thread is then inside of a system call that the
// Go scheduler does not know of (as it is for syscall.ForkExec), so that the other goroutines
// go on only until the garbage collector wants to stop the world.

// step says in the child's report what failed.
type step uint32

const (
	stepGroup step = iota
	stepDir
	stepNoNewPrivs
	stepFiles
	stepLimit
	stepExec
)

func (s step) String() string {
	return [...]string{"setpgid", "change directory to", "prctl(PR_SET_NO_NEW_PRIVS) for", "pass descriptors to", "setrlimit for", "execute"}[s]
}

// report is what the child writes into the pipe.
type report struct {
	step  step
	errno syscall.Errno
}

// child is all that the child's side reads. It is prepared by the parent, since the child must not
// allocate, and is used for one child only, which may write into it.
type child struct {
	path, dir *byte
	argv, env **byte
	pids      [2]pidEntry
	files     []int // files[i] becomes descriptor i; -1: closed. The child uses it as scratch
	pipe      int
	terminal  int
	oomScore  []byte // nil: leave it
	oomPath   *byte
	noNewPriv bool
	nofile    origin.Limit
	setNofile bool
	ignore    [2]bool // HUP and INT, as crank was started
	action    [8]uintptr
	byDefault [8]uintptr
	report    report
	sigttou   uint64
	oldmask   uint64
	pgrp      int32
	flags     uintptr // for clone(2)
	pidfd     int32   // the kernel's answer to the parent
}

// pidEntry is an entry of the environment that is completed with the child's pid. text is nil for none.
type pidEntry struct {
	text   []byte
	offset int
}

func prepare(spec Spec, pipe int) (*child, error) {
	c := &child{pipe: pipe, terminal: spec.Terminal, noNewPriv: spec.NoNewPrivs, flags: clonePidfd, pidfd: -1, sigttou: 1 << (syscall.SIGTTOU - 1)}
	if spec.Terminal == 0 {
		c.terminal = -1
	} else {
		c.terminal--
	}
	var err error
	if c.path, err = syscall.BytePtrFromString(spec.Path); err != nil {
		return nil, fmt.Errorf("%q: %w", spec.Path, err)
	}
	if spec.Dir != "" {
		if c.dir, err = syscall.BytePtrFromString(spec.Dir); err != nil {
			return nil, fmt.Errorf("%q: %w", spec.Dir, err)
		}
	}
	argv, err := syscall.SlicePtrFromStrings(spec.Argv)
	if err != nil {
		return nil, fmt.Errorf("an argument: %w", err)
	}
	c.argv = &argv[0]
	own := pidPrefixes(spec)
	env := spec.Env[:len(spec.Env):len(spec.Env)]
	for _, prefix := range own {
		env = append(env, prefix+strings.Repeat("0", 20))
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return nil, fmt.Errorf("a variable: %w", err)
	}
	c.env = &envp[0]
	for i, prefix := range own {
		n := len(spec.Env) + i
		c.pids[i] = pidEntry{unsafe.Slice(envp[n], len(env[n])+1), len(prefix)}
	}
	c.files = append([]int(nil), spec.Files...)
	if spec.OOMScoreAdj != "" {
		c.oomScore = []byte(spec.OOMScoreAdj)
		c.oomPath, _ = syscall.BytePtrFromString("/proc/self/oom_score_adj")
	}
	c.nofile, c.setNofile = origin.Nofile()
	c.ignore = [2]bool{origin.IgnoredSignals().HUP, origin.IgnoredSignals().INT}
	c.action[0] = sigIgn
	return c, nil
}

// pidPrefixes returns how the entries begin that name the child's own pid.
func pidPrefixes(spec Spec) (prefixes []string) {
	if spec.ListenPID {
		prefixes = append(prefixes, "LISTEN_PID=")
	}
	if spec.WatchdogPID {
		prefixes = append(prefixes, "WATCHDOG_PID=")
	}
	return prefixes
}

// fork starts the child and waits until it runs the app. pidfd is -1 on kernels before 5.2, and under emulators.
func fork(spec Spec) (pid, pidfd int, err error) {
	r, w, err := linux.Pipe()
	if err != nil {
		return 0, -1, err
	}
	defer linux.Close(r)
	c, err := prepare(spec, w)
	if err != nil {
		linux.Close(w)
		return 0, -1, &StartError{Op: "execute", Path: spec.Path, Err: err}
	}
	pid = locked(c)
	if pid == -int(syscall.EINVAL) {
		// QEMU's user mode, in which containers of another architecture run, refuses the flags that it does not know.
		c.flags = 0
		pid = locked(c)
	}
	pidfd = int(c.pidfd)
	linux.Close(w)
	runtime.KeepAlive(c)
	if pid < 0 {
		return 0, -1, &StartError{Op: "fork for", Path: spec.Path, Err: syscall.Errno(-pid)}
	}

	var rep report
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&rep)), unsafe.Sizeof(rep))
	n, err := linux.Read(r, buf)
	if n == 0 && err == nil {
		return pid, pidfd, nil
	}
	// The child is about to exit; its status belongs to nobody.
	linux.Close(pidfd)
	discard(pid)
	if n != len(buf) {
		err = cmp.Or(err, io.ErrUnexpectedEOF)
		return 0, -1, &StartError{Op: "execute", Path: spec.Path, Err: fmt.Errorf("no report from the child (%d bytes): %w", n, err)}
	}
	path := spec.Path
	if rep.step == stepDir {
		path = spec.Dir
	}
	return 0, -1, &StartError{Op: rep.step.String(), Path: path, Err: rep.errno}
}

// locked is clone with nobody else's fork and no signal meanwhile.
func locked(c *child) (pid int) {
	syscall.ForkLock.Lock()
	pid = clone(c)
	runtimeAfterFork()
	syscall.ForkLock.Unlock()
	return pid
}

// clone makes the child, which stays in run, and returns its pid, or -errno, in the parent, which is
// to call runtimeAfterFork then.
//
// With vfork the two share this frame of the stack: what the child does after rawClone has returned
// there is done before it returns to the parent. So the parent's way out uses nothing of the frame but what the
// child leaves alone, the return address, and what rawClone stores for each of them, the result. That is why
// the parent goes on in another function, and why this one is not inlined into it.
//
//go:norace
//go:noinline
//go:nocheckptr
func clone(c *child) (pid int) {
	runtimeBeforeFork()
	// clone(2): with CLONE_PIDFD the descriptor is stored where CLONE_PARENT_SETTID would store the
	// pid. An older kernel ignores the flag and stores nothing.
	pid = rawClone(cloneMemory|c.flags|uintptr(syscall.SIGCHLD), &c.pidfd)
	if pid != 0 {
		return pid
	}
	runtimeAfterForkInChild()
	c.run()
	return 0 // never: run does not return
}

const clonePidfd = 0x1000

// run is the child: one thread, with the parent's memory or a copy of it, in an unknown state. No
// allocation, no lock, no growth of the stack, no call but RawSyscall, and no store of a pointer
// (the garbage collector's write barrier may be on). Nothing is stored outside of c and what belongs to it,
// for the parent may see it. What the system calls change is the child's own all the same:
// descriptors, directory, handlers, limits are shared with CLONE_FILES, CLONE_FS, CLONE_SIGHAND and CLONE_THREAD only.
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
	c.placeFiles()
	if c.setNofile {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, rlimitNofile, uintptr(unsafe.Pointer(&c.nofile)), 0, 0, 0); errno != 0 {
			c.fail(stepLimit, errno)
		}
	}
	for i := 0; i < len(c.pids); i++ {
		if c.pids[i].text != nil {
			c.pids[i].write(int(pid))
		}
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(c.argv)), uintptr(unsafe.Pointer(c.env)))
	c.fail(stepExec, errno)
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
	rlimitNofile    = 7
)

// writeOOMScore is best effort: with a read-only /proc the app runs as it would without crank. Processes that share
// their memory have one score, but not a child of vfork (__set_oom_adj in the kernel's fs/proc/base.c).
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

// The hooks that the runtime keeps for programs that fork by themselves (runtime/proc.go).

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()
