package signals

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/origin"
	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

const patience = 30 * time.Second

func next(t *testing.T, in *Inbox) syscall.Signal {
	t.Helper()
	select {
	case sig := <-in.Signals():
		return sig
	case <-time.After(patience):
		t.Fatal("no signal")
		return 0
	}
}

func listen(rewrite map[syscall.Signal]syscall.Signal) *Inbox {
	in := Listen(rewrite, func() {})
	in.ListenAll()
	return in
}

// TestEverySignal sends this process each signal that it may catch.
func TestEverySignal(t *testing.T) {
	in := listen(nil)
	defer in.Close()
	all := passed()
	if len(all) != 64-3-2-4 { // 32 to 34; KILL and STOP; CHLD, PIPE, URG and PROF
		t.Fatalf("%d signals", len(all))
	}
	for _, sig := range all {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got := next(t, in); got != sig {
			t.Fatalf("sent %v, got %v", sig, got)
		}
	}
}

// TestFlood shows that 10,000 of one signal, taken by nobody, displace no other.
func TestFlood(t *testing.T) {
	in := listen(nil)
	defer in.Close()
	for range 10_000 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGWINCH} {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	got := map[syscall.Signal]int{}
	for got[syscall.SIGHUP]+got[syscall.SIGTERM]+got[syscall.SIGWINCH] < 3 {
		got[next(t, in)]++
	}
	if got[syscall.SIGUSR1] < 1 || got[syscall.SIGUSR1] > 4 {
		t.Errorf("got %v", got)
	}
}

func TestRewrite(t *testing.T) {
	in := listen(map[syscall.Signal]syscall.Signal{syscall.SIGUSR1: syscall.SIGTERM, syscall.SIGUSR2: 0})
	defer in.Close()
	for _, sig := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGUSR1} {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if got := next(t, in); got != syscall.SIGTERM {
		t.Errorf("got %v, want USR2 dropped and USR1 as TERM", got)
	}
}

// TestChildren: also while a signal waits that nobody takes.
func TestChildren(t *testing.T) {
	in := listen(nil)
	defer in.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"x", "-test.run=^$"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-in.Children():
	case <-time.After(patience):
		t.Error("no SIGCHLD")
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestBeforeListen: the signals that matter most are kept when they come before anybody has asked for them, and each is
// delivered once; the others end nobody. The child is this test binary, which a signal meets long before its main.
func TestBeforeListen(t *testing.T) {
	if os.Getenv("CRANK_TEST_EARLY") != "" {
		// Nobody has listened so far; the default action of these would have ended or stopped this process.
		origin.WaitForSignals()
		runtime.LockOSThread() // a signal to the own thread is there when tgkill(2) returns
		for _, sig := range slices.Concat(passed(), []syscall.Signal{syscall.SIGPIPE, syscall.SIGHUP}) {
			if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
				t.Fatal(err)
			}
		}
		in := Listen(nil, func() {})
		defer in.Close()
		got := map[syscall.Signal]int{}
		for range origin.Kept() {
			got[next(t, in)]++
		}
		for _, n := range origin.Kept() {
			if sig := syscall.Signal(n); got[sig] != 1 {
				t.Errorf("%v was delivered %d times", sig, got[sig])
			}
		}
		in.ListenAll()
		if err := syscall.Kill(os.Getpid(), syscall.SIGALRM); err != nil {
			t.Fatal(err)
		}
		if sig := next(t, in); sig != syscall.SIGALRM {
			t.Errorf("%v came late, or twice", sig)
		}
		return
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"x", "-test.run=^TestBeforeListen$"}, &os.ProcAttr{
		Files: []*os.File{nil, os.Stderr, os.Stderr}, Env: append(os.Environ(), "CRANK_TEST_EARLY=1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil || !state.Success() {
		t.Errorf("%v %v", state, err)
	}
}
