package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/crankctl/crank/pkg/linux"
)

// TestStartChangesOnlyTheChild takes every step, and makes every step fail.
func TestStartChangesOnlyTheChild(t *testing.T) {
	everything := Spec{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "exit 7"}, Env: []string{"A=b"}, Dir: t.TempDir(), Files: []int{2, -1, 0, 1},
		ListenPID: true, WatchdogPID: true, OOMScoreAdj: "1000", NoNewPrivs: true,
	}
	keeps(t, func() {
		p, err := execute(everything)
		if err != nil {
			t.Error(err)
			return
		}
		if e := (&started{p, nil}).wait(t); e.Code != 7 {
			t.Error(e)
		}
	})
	for _, c := range []struct {
		step   step
		refuse uint32 // a system call
		change func(*Spec)
	}{
		{step: stepGroup, refuse: syscall.SYS_SETPGID},
		{step: stepDir, change: func(s *Spec) { s.Dir = "/no/such/directory" }},
		{step: stepNoNewPrivs, refuse: syscall.SYS_PRCTL},
		{step: stepFiles, change: func(s *Spec) { s.Files = []int{0, 1, 1 << 20} }},
		{step: stepFiles, refuse: syscall.SYS_FCNTL},
		{step: stepLimit, refuse: syscall.SYS_PRLIMIT64},
		{step: stepExec, change: func(s *Spec) { s.Path = "/no/such/program" }},
		{step: stepExec, refuse: syscall.SYS_EXECVE},
	} {
		ended := make(chan struct{})
		go func() { // its thread ends with it, and the filter with that
			defer close(ended)
			runtime.LockOSThread()
			spec := everything
			if c.change != nil {
				c.change(&spec)
			} else {
				refuse(c.refuse, syscall.ENODATA)
			}
			keeps(t, func() {
				_, err := execute(spec)
				failed, ok := errors.AsType[*StartError](err)
				if !ok || failed.Op != c.step.String() || c.refuse != 0 && !errors.Is(err, syscall.ENODATA) {
					t.Errorf("%s (refused: %d): got %v", c.step, c.refuse, err)
				}
			})
		}()
		<-ended
	}
	if none, err := Reap(func(e Exit) { t.Errorf("left behind: %+v", e) }); !none || err != nil {
		t.Errorf("children are left: %v %v", none, err)
	}
}

// keeps checks that f changes nothing here that a child changes for itself.
func keeps(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := own()
	f()
	if after := own(); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}

// own describes this process and thread, without the system calls that may be refused.
func own() string {
	var b strings.Builder
	dir, err := os.Readlink("/proc/self/cwd")
	fmt.Fprintln(&b, dir, err, "group", syscall.Getpgrp())
	for fd := range 256 {
		if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil {
			info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
			fmt.Fprintln(&b, fd, target, "flags", statusField(string(info), "flags"), err) // with O_CLOEXEC
		}
	}
	for _, name := range []string{"limits", "oom_score_adj", "environ"} {
		content, err := os.ReadFile("/proc/self/" + name)
		fmt.Fprintf(&b, "%s %v\n", content, err)
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	fmt.Fprintln(&b, err)
	for _, field := range []string{"Pid", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "Umask"} {
		fmt.Fprintln(&b, field, statusField(string(status), field))
	}
	return b.String()
}

// refuse makes a system call of this thread and its children fail with an error (seccomp(2)).
func refuse(call uint32, errno syscall.Errno) {
	const (
		load   = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS
		equal  = syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K
		answer = syscall.BPF_RET | syscall.BPF_K
		allow  = 0x7fff0000 // SECCOMP_RET_ALLOW
		fail   = 0x00050000 // SECCOMP_RET_ERRNO
		number = 0          // of the system call in struct seccomp_data

		prSetSeccomp, modeFilter = 22, 2
	)
	filter := []syscall.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: call, Jf: 1},
		{Code: answer, K: fail | uint32(errno)},
		{Code: answer, K: allow},
	}
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	for _, args := range [][3]uintptr{
		{prSetNoNewPrivs, 1, 0},
		{prSetSeccomp, modeFilter, uintptr(unsafe.Pointer(&program))},
	} {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, args[0], args[1], args[2], 0, 0, 0); errno != 0 {
			panic(errno)
		}
	}
	runtime.KeepAlive(filter)
}

// TestExecutedIsTheProgram pins that the child runs its program when Executed says so.
func TestExecutedIsTheProgram(t *testing.T) {
	want, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		r, w, err := linux.Pipe(0)
		if err != nil {
			t.Fatal(err)
		}
		p, err := execute(Spec{Path: "/bin/sh", Argv: []string{"sh", "-c", "read x"}, Files: []int{r}})
		if err != nil {
			t.Fatal(err)
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID())); exe != want {
			t.Errorf("the child runs %s, %v", exe, err)
		}
		linux.Close(r, w)
		(&started{p, nil}).wait(t)
	}
}

// TestStartsUnderLoad: goroutines allocate, grow their stacks and are preempted, the collector runs, and two goroutines start children, each
// on a fresh stack.
func TestStartsUnderLoad(t *testing.T) {
	var load sync.WaitGroup
	quit := make(chan struct{})
	defer load.Wait()
	defer close(quit)
	for _, work := range []func(){
		runtime.GC,
		func() { sink(make([]*[64]byte, 1<<12)) },
		func() { grow(1 << 10) },
		func() { _, _ = os.ReadFile("/proc/self/stat") },
	} {
		load.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					work()
				}
			}
		})
	}
	const starters, starts = 2, 125 // of those that succeed; as many fail
	var all sync.WaitGroup
	for range starters {
		all.Go(func() {
			for range starts {
				done := make(chan error)
				go func() { done <- startBoth() }()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if none, err := Reap(func(e Exit) { t.Errorf("left behind: %+v", e) }); !none || err != nil {
		t.Errorf("children are left: %v %v", none, err)
	}
}

// startBoth starts a child that checks its pid in the environment, and one that is not there.
func startBoth() error {
	p, err := Start(Spec{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "test $LISTEN_PID = $$ && test $WATCHDOG_PID = $$ && test $A = b"},
		Env: []string{"A=b"}, ListenPID: true, WatchdogPID: true, Files: []int{2, 1, 0},
	})
	if err != nil {
		return err
	}
	// Not Reap, which would take the other one's.
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(p.PID(), &status, 0, nil); pid != p.PID() || status != 0 {
		return fmt.Errorf("process %d: status %v: %w", pid, status, err)
	}
	p.Gone()
	if p, err = Start(Spec{Path: "/no/such/file", Argv: []string{"x"}, Files: []int{2, 1, 0}}); err != nil {
		return err
	}
	<-p.ExecOver()
	if p.Executed() || !errors.Is(p.execution.failure, syscall.ENOENT) {
		return fmt.Errorf("a program that is not there: %+v", p.execution)
	}
	_, err = syscall.Wait4(p.PID(), &status, 0, nil)
	p.Gone()
	return err
}

//go:noinline
func sink(all []*[64]byte) {
	for i := range all {
		all[i] = new([64]byte)
	}
}

//go:noinline
func grow(depth int) (sum byte) {
	var frame [128]byte
	frame[depth%len(frame)] = 1
	if depth > 0 {
		sum = grow(depth - 1)
	}
	return sum + frame[(depth*7)%len(frame)]
}
