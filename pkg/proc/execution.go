package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/linux"
)

// execution tracks a child between its fork and its exec. The goroutine that reaps reads the pipe; another one only waits until it is
// readable.
type execution struct {
	name, dir, search string
	paths             []string // the candidates
	pipe              *os.File // the read end; nil: the outcome is known
	over              chan struct{}
	executed          bool
	failure           *StartError
}

// executing holds, by pid, the processes whose exec is not over, or failed. The lock is for tests that start children in several
// goroutines.
var executing = struct {
	sync.Mutex
	byPID map[int]*Process
}{byPID: map[int]*Process{}}

var errLeased = errors.New("another process holds a lease on it (fcntl(2)): put a new binary in place with a rename")

// watch starts to wait for the outcome of p's exec, which arrives on the pipe r.
func (p *Process) watch(r int, spec Spec, paths []string) {
	x := &execution{
		name: spec.Path, dir: spec.Dir, search: spec.Search, paths: paths,
		pipe: os.NewFile(uintptr(r), "exec"), over: make(chan struct{}),
	}
	p.execution = x
	executing.Lock()
	executing.byPID[p.pid] = p
	executing.Unlock()
	conn, err := x.pipe.SyscallConn()
	if err != nil { // never: the file is open
		close(x.over)
		return
	}
	go func() { // ends with the child at the latest: only the child has the write end
		defer close(x.over)
		_ = conn.Read(func(fd uintptr) bool { return linux.Readable(int(fd)) })
	}()
}

// ExecOver is closed when the exec of a process that Start started has succeeded or failed, or the process has ended before it: time to
// call Executed and Reap. It may be closed earlier where the runtime cannot wait for descriptors.
func (p *Process) ExecOver() <-chan struct{} { return p.execution.over }

// Executed reports whether the process runs its program, or ran it. It is false while the exec is not over, if it failed (Reap says
// why), and if the process was killed before it. It does not block.
func (p *Process) Executed() bool {
	p.look()
	return p.execution.executed
}

// look takes the outcome from the pipe, if it has arrived. It must be called before the status of the process is taken.
func (p *Process) look() {
	x := p.execution
	if x == nil || x.pipe == nil {
		return
	}
	var r report
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))
	conn, err := x.pipe.SyscallConn()
	if err != nil {
		return
	}
	var n int
	if controlErr := conn.Control(func(fd uintptr) { n, err = linux.Read(int(fd), buf) }); errors.Is(err, syscall.EAGAIN) || controlErr != nil {
		return
	}
	switch {
	case n == len(buf):
		x.failure = x.explain(r)
	case n == 0 && err == nil:
		x.executed = !endedUnexecuted(p.pid)
	default:
		err = errors.Join(err, io.ErrUnexpectedEOF)
		x.failure = &StartError{Op: "execute", Path: x.name, Err: fmt.Errorf("no report from the child (%d bytes): %w", n, err)}
	}
	x.close()
	if x.failure == nil { // otherwise Reap has to report it
		p.forget()
	}
}

// close ends the goroutine in watch.
func (x *execution) close() {
	if x.pipe != nil {
		_ = x.pipe.Close()
		x.pipe = nil
	}
}

// unwatch drops a process whose outcome no longer matters.
func (p *Process) unwatch() {
	if p.execution != nil {
		p.execution.close()
		p.forget()
	}
}

func (p *Process) forget() {
	executing.Lock()
	delete(executing.byPID, p.pid)
	executing.Unlock()
}

// explain turns a report into an error.
func (x *execution) explain(r report) *StartError {
	e := &StartError{Op: r.step.String(), Path: x.name, Err: r.errno}
	switch r.step {
	case stepDir:
		e.Path = x.dir
	case stepFind:
		e.Err = fmt.Errorf("%w in PATH=%s", fs.ErrNotExist, x.search)
	case stepLease:
		e.Path, e.Err = x.file(r), errLeased
	case stepInterpreter: // "126", not "127": the file itself exists
		e.Path, e.Err = x.file(r), execvp.NoInterpreter(r.head[:r.length])
	case stepRead:
		e.Path, e.Err = x.file(r), execvp.Unreadable(r.errno)
	case stepShell:
		e.Path, e.Err = x.file(r), execvp.NoShell(r.errno)
	case stepExec:
		e.Path = x.file(r)
		if r.errno == syscall.ENOENT && !filepath.IsAbs(e.Path) {
			e.Err = missingHere()
		}
	}
	return e
}

// missingHere returns ENOENT for a file in this process's working directory, which the child had, and says more if that is deleted.
func missingHere() error {
	if _, err := syscall.Getwd(); err != syscall.ENOENT {
		return syscall.ENOENT
	}
	name, _ := os.Readlink("/proc/self/cwd")
	return fmt.Errorf("%w: the working directory %s is deleted", syscall.ENOENT, strings.TrimSuffix(name, " (deleted)"))
}

// file returns the candidate that a report is about, as it is called from everywhere.
func (x *execution) file(r report) string {
	file := x.paths[r.candidate]
	if x.dir != "" && !filepath.IsAbs(file) {
		return filepath.Join(x.dir, file)
	}
	return file
}

// endedUnexecuted reports whether a child was killed before it executed its program, which an end of file does not tell. Such a child
// still has the kernel's PF_FORKNOEXEC (include/linux/sched.h; proc_pid_stat(5), flags) until its status is taken. Where the flag
// cannot be seen, as under gVisor or without /proc, the child counts as executed.
func endedUnexecuted(pid int) bool {
	const flagForkNoExec = 0x40
	line, _ := linux.ReadSmall("/proc/"+strconv.Itoa(pid)+"/stat", maxStat)
	fields := statFields(line)
	if len(fields) < 7 || string(fields[1]) != strconv.Itoa(os.Getpid()) {
		return false
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	return err == nil && flags&flagForkNoExec != 0
}

// failed returns the exec error of a process whose status is about to be taken; nil: there was none, or Start did not start it.
func failed(pid int) *StartError {
	executing.Lock()
	p := executing.byPID[pid]
	executing.Unlock()
	if p == nil {
		return nil
	}
	p.look()
	p.forget()
	return p.execution.failure
}

func anyExecuting() bool {
	executing.Lock()
	defer executing.Unlock()
	return len(executing.byPID) > 0
}
