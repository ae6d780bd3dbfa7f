package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/crankctl/crank/pkg/signame"
)

// reserveThreads creates the threads that the app may need later, as crank does for itself: some tests exhaust pids.max to test crank, not
// the app.
func reserveThreads() {
	const threads = 8
	var made sync.WaitGroup
	release := make(chan struct{})
	made.Add(threads)
	for range threads {
		go func() {
			runtime.LockOSThread() // a thread for each of these goroutines
			defer runtime.UnlockOSThread()
			made.Done()
			<-release
		}()
	}
	made.Wait()
	close(release)
}

// startOrphans starts processes that outlive this one. They have no descriptor of the sockets.
func startOrphans(o options) error {
	for range o.orphans {
		p, err := os.StartProcess("/proc/self/exe",
			[]string{"app-orphan", "-orphan", "-orphan-life", o.orphanLife.String()},
			&os.ProcAttr{
				Files: []*os.File{nil, os.Stdout, os.Stderr},
				Sys:   &syscall.SysProcAttr{Setsid: o.orphansSetsid},
			})
		if err != nil {
			return err
		}
		fmt.Println("orphan", p.Pid)
		p.Release()
	}
	return nil
}

func beOrphan(o options) int {
	signal.Ignore(endings...)
	time.Sleep(o.orphanLife)
	return 0
}

// dieLater lets a signal end the process. Its action is made the default one behind the back of the
// Go runtime, which would turn SEGV and ABRT into "exit 2".
func (o options) dieLater() {
	if o.die == "" {
		return
	}
	sig, err := signame.Parse(o.die)
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(2)
	}
	after(o.dieAfter, func() {
		var action [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags, an empty mask
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		syscall.Kill(os.Getpid(), sig)
	})
}

// maxDescriptor is the highest number that openDescriptors asks for.
const maxDescriptor = 1024

// openDescriptors lists the descriptors that were inherited, without opening any:
//
//	fd 3 kind=socket nonblock=false target=socket:[1234]
//
// Those that an exec would close cannot have been: the Go runtime opened them, for the CPU limit of
// the cgroup.
func openDescriptors() []string {
	var list []string
	for fd := range maxDescriptor {
		flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
		if errno != 0 {
			continue
		}
		if own, _, _ := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); own&syscall.FD_CLOEXEC != 0 {
			continue
		}
		target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		kind, _, special := strings.Cut(target, ":")
		if !special {
			kind = "file"
		}
		list = append(list, fmt.Sprintf("fd %d kind=%s nonblock=%v target=%s",
			fd, kind, flags&syscall.O_NONBLOCK != 0, target))
	}
	return list
}

// wants reports whether a boolean flag is set, before flags are parsed.
func wants(args []string, name string) bool {
	return slices.Contains(args, "-"+name) || slices.Contains(args, "--"+name) ||
		os.Getenv("APP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))) == "true"
}

// eaten keeps the memory that eat took.
var eaten [][]byte

// eat takes memory and uses every page of it.
func eat(mib int) {
	for range mib {
		chunk := make([]byte, 1<<20)
		for i := 0; i < len(chunk); i += os.Getpagesize() {
			chunk[i] = 1
		}
		eaten = append(eaten, chunk)
	}
	fmt.Println("eaten", mib)
}
