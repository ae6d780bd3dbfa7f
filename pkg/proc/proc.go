// Package proc is the only place that starts, signals and reaps processes.
//
// One goroutine calls Start and Reap, so that no child can be reaped before it was recorded;
// exec.Cmd and Process.Wait beside a wait4(-1) would steal each other's children
// (https://go.dev/issue/60481 and its kin). Everything here is meant for that goroutine.
package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/linux"
)

// Spec describes a process to start.
type Spec struct {
	// Path is the program, as for execvp(3): with a slash it is relative to Dir, without one it is looked up in Search. A text file
	// without a #! line is run by /bin/sh.
	Path   string
	Search string   // the value of PATH (execvp.Path); empty: Dir
	Argv   []string // with argv[0]
	Env    []string // the whole environment
	Dir    string   // working directory; empty: crank's own
	// Files[i] becomes descriptor i of the child; -1 leaves it closed. Nothing else is inherited
	// as long as every other descriptor of crank's is close-on-exec. Their flags (O_NONBLOCK is shared
	// by all holders of a socket) are not touched.
	Files []int
	// ListenPID appends LISTEN_PID=<the child's own pid> to Env.
	ListenPID bool
	// WatchdogPID appends WATCHDOG_PID likewise.
	WatchdogPID bool
	// Terminal, if not 0, is 1 + the descriptor (of crank) of the terminal whose foreground group
	// the child's new process group becomes.
	Terminal int
	// OOMScoreAdj is written to the child's /proc/self/oom_score_adj; empty: left alone.
	OOMScoreAdj string
	NoNewPrivs  bool
}

// StartError says which step of a start failed. Err is a syscall.Errno, or an error of the parent.
type StartError struct {
	Op, Path string
	Err      error
}

func (e *StartError) Error() string {
	return fmt.Sprintf("cannot %s %s: %v%s", e.Op, e.Path, e.Err, advice(e.Err))
}

func (e *StartError) Unwrap() error { return e.Err }

// ExitCode is what a shell would exit with: 127 if the program is not found, 126 for everything else. If the working directory is not
// found, the program was not looked for.
func (e *StartError) ExitCode() int {
	if errors.Is(e.Err, fs.ErrNotExist) && e.Op != stepDir.String() {
		return 127
	}
	return 126
}

// advice explains the errors of execve(2) that do not explain themselves.
func advice(err error) string {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return " (" + execvp.NoFormat + ")"
	case errors.Is(err, syscall.ETXTBSY):
		return " (somebody is still writing to it: put a new binary in place with a rename)"
	case errors.Is(err, syscall.EAGAIN):
		return " (the limit of processes is reached: see pids.max of the container, or ulimit -u)"
	case errors.Is(err, syscall.E2BIG):
		return " (arguments and environment are too long)"
	}
	return ""
}

// Process is a child of crank's, which leads a group of its own, or a descendant that was adopted.
type Process struct {
	pid   int
	pidfd int    // -1 where the kernel has none
	start uint64 // Entry.Start of an adopted one; 0: Start has started it
	group int    // besides its own, the group that an adopted one may be signalled with
	gone  bool

	execution *execution // nil: it was adopted
}

// Start forks and does not wait for the child, whose exec may hang for a long time: Executed tells that it runs its program, Reap why it
// does not. Errors are *StartError, except if no pipe can be created.
func Start(spec Spec) (*Process, error) {
	if spec.Path == "" {
		return nil, &StartError{Op: "execute", Path: `""`, Err: errors.New("the command is empty")}
	}
	r, w, err := linux.Pipe(syscall.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	paths := execvp.Candidates(spec.Path, spec.Search)
	pid, pidfd, err := fork(spec, paths, w)
	linux.Close(w)
	if err != nil {
		linux.Close(r)
		return nil, err
	}
	p := &Process{pid: pid, pidfd: pidfd}
	p.watch(r, spec, paths)
	return p, nil
}

// PID returns the process's id, which is also its group's unless it was adopted.
func (p *Process) PID() int { return p.pid }

// Gone is to be called once Reap has returned this process: its pid may belong to another one from
// then on, so Signal does nothing any more.
func (p *Process) Gone() {
	p.gone = true
	p.unwatch()
	linux.Close(p.pidfd) // which does nothing with -1
	p.pidfd = -1
}

// IsGone reports whether Gone was called.
func (p *Process) IsGone() bool { return p.gone }

// Signal signals the process itself. It returns nil where the process is gone already.
func (p *Process) Signal(sig syscall.Signal) error {
	if p.gone {
		return nil
	}
	if p.pidfd >= 0 {
		unsupported, err := linux.PidfdSignal(p.pidfd, sig)
		if !unsupported {
			return ignoreGone(err)
		}
	}
	// The pid is still the child's: only the caller reaps, and it has not reaped this one. Who reaps an
	// adopted one is not known.
	if _, ok := p.Look(); p.start != 0 && !ok {
		return nil
	}
	return ignoreGone(linux.Kill(p.pid, sig))
}

// SignalGroup signals the process and all of its process group. Once the process is gone the
// group's id is used only while a member holds it, which Members tells.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	if p.gone {
		return nil
	}
	group := p.pid
	if p.start != 0 {
		e, ok := p.Look()
		if !ok || e.Group != p.pid && e.Group != p.group {
			return p.Signal(sig)
		}
		group = e.Group
	}
	return ignoreGone(linux.Kill(-group, sig))
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
