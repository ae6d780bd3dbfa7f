// Package signals receives the signals that are sent to crank.
//
// It asks the Go runtime for them itself, as os/signal does, and nothing else in crank may use os/signal: the runtime has
// one receiver. There are two reasons. os/signal drops a signal when its channel is full, while the runtime keeps
// each signal pending until it is taken, at most once, as the kernel does (signal(7), "Standard signals do not queue"). And
// to ask for all of them takes some 2 ms (see pkg/origin), which are not the app's to wait for.
package signals

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	_ "unsafe" // for go:linkname

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/origin" // keeps those that matter most from the first moment on
)

// The last signal, SIGRTMAX, and the first that the Go runtime leaves to programs: 32 and 33 are
// the C library's, and 33 is also how the runtime sets user ids in all threads (runtime/os_linux.go, sigPerThreadSyscall); 34 is the
// C library musl's (runtime/sigtab_linux_generic.go).
const (
	last          = 64
	firstRealTime = 35
)

// own are not passed on. CHLD has a channel of its own; KILL and STOP cannot be caught; URG is how Go preempts goroutines
// (https://go.dev/issue/37942); PROF never reaches a program: the runtime takes it for its profiler
// (runtime/signal_unix.go, sighandler). PIPE stays ignored, as pkg/origin has left it, so that a stdout that was closed does not
// end crank; pkg/proc gives the app its default action back.
var own = []syscall.Signal{syscall.SIGCHLD, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGURG, syscall.SIGPROF, syscall.SIGPIPE}

// passed returns every signal that is passed on.
func passed() (all []syscall.Signal) {
	for n := syscall.Signal(1); n <= last; n++ {
		if !slices.Contains(own, n) && (n < 32 || n >= firstRealTime) {
			all = append(all, n)
		}
	}
	return all
}

// Inbox hands out the signals that came.
type Inbox struct {
	signals  chan syscall.Signal
	children chan struct{}
	received chan syscall.Signal // from receive to pump
	quit     chan struct{}
	ended    chan struct{}
	cpu      cpuLimit
	overCPU  func() // called once
}

// Listen starts to receive CHLD and origin.Kept, beginning with what has come since the program's start. The others are
// ignored until ListenAll. rewrite is applied at once; what it maps to 0 is dropped. The XCPU that the kernel sends because crank has used
// its CPU time (ulimit -t) are dropped before, and with the first one overCPU, which must not block, is called. There is one Inbox at a
// time: the caller Closes it before the next one.
func Listen(rewrite map[syscall.Signal]syscall.Signal, overCPU func()) *Inbox {
	in := &Inbox{
		signals: make(chan syscall.Signal), children: make(chan struct{}, 1), received: make(chan syscall.Signal),
		quit: make(chan struct{}), ended: make(chan struct{}), cpu: newCPULimit(), overCPU: sync.OnceFunc(overCPU),
	}
	origin.WaitForSignals()
	go in.pump(rewrite)
	inbox.Store(in)
	startReceiving()
	return in
}

// ListenAll starts to receive all the others as well, and returns when it does. The VTALRM of a timer that crank was started with measures
// crank's own CPU time, not the app's: the timer is stopped.
func (in *Inbox) ListenAll() {
	linux.StopVirtualTimer()
	enabling.Lock()
	defer enabling.Unlock()
	for _, sig := range passed() {
		signalEnable(uint32(sig))
	}
}

// Signals delivers all but crank's own.
func (in *Inbox) Signals() <-chan syscall.Signal { return in.signals }

// Children delivers whenever a child may have ended.
func (in *Inbox) Children() <-chan struct{} { return in.children }

// Wake makes Children deliver, as a SIGCHLD does. It does not block: one that is pending is enough,
// since all are reaped then.
func (in *Inbox) Wake() {
	select {
	case in.children <- struct{}{}:
	default:
	}
}

// Close stops delivering. Signals that come after it are thrown away until the next Listen.
func (in *Inbox) Close() {
	inbox.CompareAndSwap(in, nil)
	close(in.quit)
	<-in.ended
}

// inbox gets what is received; nil: it is thrown away.
var inbox atomic.Pointer[Inbox]

var startReceiving = sync.OnceFunc(func() { go receive() })

// receive takes one signal after the other from the runtime, and ends with the program.
func receive() {
	for {
		sig := syscall.Signal(signalReceive())
		in := inbox.Load()
		switch {
		case in == nil:
		case sig == syscall.SIGCHLD:
			in.Wake()
		default:
			select {
			case in.received <- sig:
			case <-in.quit:
			}
		}
		// Whoever has been handed the signal is to run next on this thread. To wait for another one would give that up
		// to a thread that has to be woken first: a third of a signal's way to the app.
		runtime.Gosched()
	}
}

// queue holds each signal at most once, in the order in which they came.
type queue struct {
	pending [last + 1]bool
	order   []syscall.Signal
}

func (q *queue) push(sig syscall.Signal) {
	if !q.pending[sig] {
		q.pending[sig] = true
		q.order = append(q.order, sig)
	}
}

func (q *queue) pop() {
	q.pending[q.order[0]] = false
	q.order = q.order[1:]
}

// pump takes signals as fast as they come and hands them out as fast as they are taken.
func (in *Inbox) pump(rewrite map[syscall.Signal]syscall.Signal) {
	defer close(in.ended)
	var q queue
	for {
		var out chan syscall.Signal
		var next syscall.Signal
		if len(q.order) > 0 {
			out, next = in.signals, q.order[0]
		}
		select {
		case sig := <-in.received:
			if sig == syscall.SIGXCPU && in.cpu.reached() {
				in.overCPU()
				continue
			}
			if to, ok := rewrite[sig]; ok {
				sig = to
			}
			if sig != 0 {
				q.push(sig)
			}
		case out <- next:
			q.pop()
		case <-in.quit:
			return
		}
	}
}

// enabling is held while signals are asked for: the runtime wants one at a time.
var enabling sync.Mutex

// What the runtime has for os/signal (runtime/sigqueue.go).

//go:linkname signalEnable os/signal.signal_enable
func signalEnable(n uint32)

//go:linkname signalReceive os/signal.signal_recv
func signalReceive() uint32
