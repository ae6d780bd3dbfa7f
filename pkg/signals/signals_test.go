package signals

import (
	"os"
	"syscall"
	"testing"
	"time"

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

// TestEverySignal sends this process each of the 64 signals that a program may catch.
func TestEverySignal(t *testing.T) {
	in := Listen(nil)
	defer in.Close()
	all := others()
	all = append(all, control...)
	if len(all) != 64-3-2-4 { // 32 to 34; KILL and STOP; CHLD, PIPE, URG and PROF
		t.Fatalf("%d signals", len(all))
	}
	for _, sig := range all {
		if err := syscall.Kill(os.Getpid(), sig.(syscall.Signal)); err != nil {
			t.Fatal(err)
		}
		if got := next(t, in); got != sig {
			t.Fatalf("sent %v, got %v", sig, got)
		}
	}
}

// TestFlood shows that 10,000 of one signal, taken by nobody, displace no other.
func TestFlood(t *testing.T) {
	in := Listen(nil)
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
	in := Listen(map[syscall.Signal]syscall.Signal{syscall.SIGUSR1: syscall.SIGTERM, syscall.SIGUSR2: 0})
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

func TestChildren(t *testing.T) {
	in := Listen(nil)
	defer in.Close()
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

// TestBeforeListen: a signal that came before anybody asked for it is held, and delivered once. The
// child is this test binary, which a signal meets long before its main.
func TestBeforeListen(t *testing.T) {
	if os.Getenv("CRANK_TEST_EARLY") != "" {
		// Nobody has listened so far; the default action of these would have ended this process.
		for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1} {
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
		}
		in := Listen(nil)
		defer in.Close()
		got := map[syscall.Signal]int{}
		for range 3 {
			got[next(t, in)]++
		}
		select {
		case sig := <-in.Signals():
			t.Errorf("%v came twice", sig)
		case <-time.After(50 * time.Millisecond):
		}
		if len(got) != 3 {
			t.Errorf("got %v", got)
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
