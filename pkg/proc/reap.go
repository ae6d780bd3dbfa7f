package proc

import (
	"fmt"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/signame"
)

// Exit is how a process ended.
type Exit struct {
	PID    int
	Code   int            // exit status; -1 where a signal ended it
	Signal syscall.Signal // 0 where it exited
	// Failed is the *StartError of a process that Start started and that could not execute its program; nil: it did, or was killed
	// before. With it, Code is what a shell would exit with.
	Failed error
}

// Status is the number a shell would give: the exit status, or 128 + the signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// String is "exited 3" or "killed by SIGKILL".
func (e Exit) String() string {
	if e.Signal != 0 {
		return "killed by " + signame.Name(e.Signal)
	}
	return fmt.Sprintf("exited %d", e.Code)
}

// Reap takes the status of every child that has ended, adopted ones included, and passes it to
// each. none is true when no child is left at all. SIGCHLD coalesces (signal(7)), so one call takes all that there are.
func Reap(each func(Exit)) (none bool, err error) {
	for {
		e, more, err := next()
		if err != nil || e.PID == 0 {
			return !more && err == nil, err
		}
		each(e)
	}
}

// next takes one status. The outcome of an exec can be seen only before that.
func next() (e Exit, more bool, err error) {
	if !anyExecuting() {
		pid, status, more, err := linux.WaitAny()
		return exitOf(pid, status), more, err
	}
	pid, more, err := linux.PeekAny()
	if err != nil || pid == 0 {
		return Exit{}, more, err
	}
	why := failed(pid)
	status, err := linux.Wait(pid)
	if why != nil {
		return Exit{PID: pid, Code: why.ExitCode(), Failed: why}, true, err
	}
	return exitOf(pid, status), true, err
}

// exitOf reads a status. wait4 is called without WUNTRACED and WCONTINUED, so a status is always an end.
func exitOf(pid int, status linux.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{PID: pid, Code: -1, Signal: status.Signal()}
	}
	return Exit{PID: pid, Code: status.ExitStatus()}
}
