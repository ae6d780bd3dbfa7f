package proc

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/origin"
)

// Why not syscall.ForkExec: LISTEN_PID must hold the child's own pid, so a step between fork and
// exec is needed that Go has no hook for. The usual answer, executing crank itself first and then
// the app, costs a second start of a Go program each time; the terminal's foreground group, the
// OOM score and no_new_privs would have to be set there as well. So the child's side is written
// out in child.go, in the manner of syscall.forkAndExecInChild, with the three runtime hooks that the
// runtime exports for exactly this use.
//
//	parent                           child
//	------                           -----
//	ForkLock, beforeFork
//	clone ─────────────────────────► afterForkInChild (handlers to default, mask as inherited)
//	afterFork, ForkLock              group, terminal, OOM score, descriptors, directory, limits
//	Start returns                    a step or execve failed: step and errno into the pipe, exit
//	  :                              execve succeeded: that closes the pipe (close-on-exec)
//	the pipe is readable:
//	Executed ◄────────── end of file, or
//	Reap ◄────────────── step, errno
//
// Between fork and exec the child can hang for any length of time. The holder of a write lease (fcntl(2), F_SETLEASE) on the program or
// on the interpreter of a script has /proc/sys/fs/lease-break-time, 45 seconds, to give it up, and a network or FUSE file system under
// the directory, an entry of PATH or the program may take any time to answer. So the parent never waits for the child.
// The fork is a plain one, which copies the page tables. With vfork(2) the parent's thread would stay in clone(2) until the child's
// execve. The Go scheduler does not know of that system call, so the garbage collector could not stop the world.

// child is all that the child's side reads. It is prepared by the parent, since the child must not
// allocate, and is used for one child only, which may write into its copy.
type child struct {
	paths     []*byte // the candidates for the program
	search    bool    // the candidates come from PATH
	dir       *byte
	argv, env **byte
	shellPath *byte
	shell     []uintptr // the shell's arguments, terminated; [1] is for the file. The strings are argv's
	pids      [2]pidEntry
	files     []int // files[i] becomes descriptor i; -1: closed. The child uses it as scratch
	pipe      int
	terminal  int
	oomScore  []byte // nil: leave it
	oomPath   *byte
	noNewPriv bool
	limits    [2]limit
	ignore    [2]bool // HUP and INT, as crank was started
	action    [8]uintptr
	byDefault [8]uintptr
	report    report
	statx     linux.Statx
	sigttou   uint64
	oldmask   uint64
	pgrp      int32
	flags     uintptr // for clone(2)
	pidfd     int32   // the kernel's answer to the parent
}

// limit is a resource limit that crank was started with and that has changed since.
type limit struct {
	resource uintptr
	value    origin.Limit
	set      bool // in the child
}

// startLimits returns the limits that the app has without crank. The Go runtime raises the number of open files, the kernel the CPU time.
func startLimits() (limits [2]limit) {
	limits[0].resource, limits[1].resource = rlimitNofile, rlimitCPU
	limits[0].value, limits[0].set = origin.Nofile()
	var ok bool
	limits[1].value, ok = origin.CPU()
	now, limited := linux.CPULimit()
	limits[1].set = ok && limited && now > limits[1].value.Cur
	return limits
}

// pidEntry is an entry of the environment that is completed with the child's pid. text is nil for none.
type pidEntry struct {
	text   []byte
	offset int
}

func prepare(spec Spec, paths []string, pipe int) (*child, error) {
	c := &child{
		pipe: pipe, search: execvp.Searches(spec.Path), terminal: spec.Terminal - 1, noNewPriv: spec.NoNewPrivs, flags: clonePidfd, pidfd: -1,
		sigttou: 1 << (syscall.SIGTTOU - 1), files: append([]int(nil), spec.Files...),
	}
	for _, path := range paths {
		text, err := syscall.BytePtrFromString(path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		c.paths = append(c.paths, text)
	}
	if spec.Dir != "" {
		var err error
		if c.dir, err = syscall.BytePtrFromString(spec.Dir); err != nil {
			return nil, fmt.Errorf("%q: %w", spec.Dir, err)
		}
	}
	argv, err := syscall.SlicePtrFromStrings(spec.Argv)
	if err != nil {
		return nil, fmt.Errorf("an argument: %w", err)
	}
	c.argv = &argv[0]
	c.prepareShell(argv)
	if err := c.prepareEnv(spec); err != nil {
		return nil, fmt.Errorf("a variable: %w", err)
	}
	if spec.OOMScoreAdj != "" {
		c.oomScore = []byte(spec.OOMScoreAdj)
		c.oomPath, _ = syscall.BytePtrFromString("/proc/self/oom_score_adj")
	}
	c.limits = startLimits()
	c.ignore = [2]bool{origin.IgnoredSignals().HUP, origin.IgnoredSignals().INT}
	c.action[0] = sigIgn
	return c, nil
}

// prepareShell prepares the arguments for the shell to run a text file: its own name, the file, and those of the command.
func (c *child) prepareShell(argv []*byte) {
	c.shellPath, _ = syscall.BytePtrFromString(execvp.Shell)
	c.shell = append(c.shell, uintptr(unsafe.Pointer(c.shellPath)), 0)
	for _, arg := range argv[1:] { // with the terminating nil
		c.shell = append(c.shell, uintptr(unsafe.Pointer(arg)))
	}
}

// prepareEnv leaves room for the child's pid in the entries that contain it.
func (c *child) prepareEnv(spec Spec) error {
	own := pidPrefixes(spec)
	env := spec.Env[:len(spec.Env):len(spec.Env)]
	for _, prefix := range own {
		env = append(env, prefix+strings.Repeat("0", 20))
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	c.env = &envp[0]
	for i, prefix := range own {
		n := len(spec.Env) + i
		c.pids[i] = pidEntry{unsafe.Slice(envp[n], len(env[n])+1), len(prefix)}
	}
	return nil
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

// fork creates the child and does not wait for it. The outcome of its exec arrives on the pipe whose write end it has.
func fork(spec Spec, paths []string, pipe int) (pid, pidfd int, err error) {
	c, err := prepare(spec, paths, pipe)
	if err != nil {
		return 0, -1, &StartError{Op: "execute", Path: spec.Path, Err: err}
	}
	pid = locked(c)
	if pid == -int(syscall.EINVAL) {
		// QEMU's user mode, in which containers of another architecture run, refuses the flags that it does not know.
		c.flags = 0
		pid = locked(c)
	}
	runtime.KeepAlive(c)
	if pid < 0 {
		return 0, -1, &StartError{Op: "fork for", Path: spec.Path, Err: syscall.Errno(-pid)}
	}
	// The child does the same. Whichever is first, a signal to the group reaches it from now on.
	_ = syscall.Setpgid(pid, pid)
	return pid, int(c.pidfd), nil
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
//go:norace
//go:noinline
//go:nocheckptr
func clone(c *child) (pid int) {
	runtimeBeforeFork()
	// clone(2): with CLONE_PIDFD the descriptor is stored where CLONE_PARENT_SETTID would store the
	// pid. An older kernel ignores the flag and stores nothing.
	flags, stack := c.flags|uintptr(syscall.SIGCHLD), uintptr(0) // 0: a copy of the caller's
	if runtime.GOARCH == "s390x" {
		flags, stack = stack, flags // CONFIG_CLONE_BACKWARDS2
	}
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags, stack, uintptr(unsafe.Pointer(&c.pidfd)), 0, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	if r != 0 {
		return int(r)
	}
	runtimeAfterForkInChild()
	c.run()
	return 0 // never: run does not return
}

const clonePidfd = 0x1000

// The hooks that the runtime keeps for programs that fork by themselves (runtime/proc.go).

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()
