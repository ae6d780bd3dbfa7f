// Package signals receives the signals that are sent to crank.
//
// os/signal drops a signal when its channel is full. Here each signal is pending at most once, as
// for the kernel (signal(7), "Standard signals do not queue"), and no flood of one signal displaces another.
package signals

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	_ "github.com/crankctl/crank/pkg/origin" // holds what comes before Listen
)

// The last signal, SIGRTMAX, and the first that the Go runtime leaves to programs: 32 and 33 are
// the C library's, 34 is used to set user ids in all threads (runtime/sigtab_linux_generic.go).
const (
	last          = 64
	firstRealTime = 35
)

// own are crank's: CHLD has a channel of its own, PIPE comes of a closed stdout, URG is how Go
// preempts goroutines (https://go.dev/issue/37942), and PROF never reaches os/signal: the runtime
// takes it for its profiler (runtime/signal_unix.go, sighandler).
var own = map[syscall.Signal]bool{syscall.SIGCHLD: true, syscall.SIGPIPE: true, syscall.SIGURG: true, syscall.SIGPROF: true}

// control are those that crank acts upon. They have a channel of their own, so that no flood of
// others displaces a TERM or HUP.
var control = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP}

// children are those about children, and PIPE, which is received to be thrown away.
var children = []os.Signal{syscall.SIGCHLD, syscall.SIGPIPE}

// others returns every signal that can be received besides.
func others() []os.Signal {
	var all []os.Signal
	for n := syscall.Signal(1); n <= last; n++ {
		uncatchable := n == syscall.SIGKILL || n == syscall.SIGSTOP
		if !own[n] && !uncatchable && !slices.Contains(control, os.Signal(n)) && (n < 32 || n >= firstRealTime) {
			all = append(all, n)
		}
	}
	return all
}

// Inbox holds the signals that came.
type Inbox struct {
	signals  chan syscall.Signal
	children chan struct{}
	raw      [3]chan os.Signal
	quit     chan struct{}
	ended    chan struct{}
}

// Listen starts to receive, beginning with what has come since the program's start. It is to be the
// first use of os/signal. rewrite is applied at once; what it maps to 0 is dropped. The caller Closes it.
func Listen(rewrite map[syscall.Signal]syscall.Signal) *Inbox {
	in := &Inbox{
		signals: make(chan syscall.Signal), children: make(chan struct{}, 1),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	for i := range in.raw {
		in.raw[i] = make(chan os.Signal, last)
	}
	// The first call of Notify begins to hand out what pkg/origin held: it has to be for all signals.
	// What comes until the last call may be in two channels, so pump merges them before it begins.
	boot := make(chan os.Signal, 2*last)
	signal.Notify(boot, slices.Concat(children, control, others())...)
	// PIPE is received and thrown away: unlike an ignored one it is not ignored in the app too, and
	// unlike a default one it does not end crank when stdout is closed.
	signal.Notify(in.raw[0], children...)
	signal.Notify(in.raw[1], control...)
	signal.Notify(in.raw[2], others()...)
	signal.Stop(boot)
	go in.pump(rewrite, boot)
	return in
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

// Close stops receiving: signals have their default action again.
func (in *Inbox) Close() {
	for _, c := range in.raw {
		signal.Stop(c)
	}
	close(in.quit)
	<-in.ended
}

// queue holds each signal at most once, in the order in which they came.
type queue struct {
	rewrite map[syscall.Signal]syscall.Signal
	pending [last + 1]bool
	order   []syscall.Signal
}

func (q *queue) push(s os.Signal) {
	sig := s.(syscall.Signal)
	if out, ok := q.rewrite[sig]; ok {
		sig = out
	}
	if sig != 0 && !q.pending[sig] {
		q.pending[sig] = true
		q.order = append(q.order, sig)
	}
}

func (q *queue) pop() {
	q.pending[q.order[0]] = false
	q.order = q.order[1:]
}

// pump takes signals as fast as they come and hands them out as fast as they are taken.
func (in *Inbox) pump(rewrite map[syscall.Signal]syscall.Signal, boot chan os.Signal) {
	defer close(in.ended)
	q := &queue{rewrite: rewrite}
	in.merge(q, boot)
	for {
		var out chan syscall.Signal
		var next syscall.Signal
		if len(q.order) > 0 {
			out, next = in.signals, q.order[0]
		}
		select {
		case sig := <-in.raw[0]:
			in.onChild(sig)
		case sig := <-in.raw[1]:
			q.push(sig)
		case sig := <-in.raw[2]:
			q.push(sig)
		case out <- next:
			q.pop()
		case <-in.quit:
			return
		}
	}
}

// merge takes what came during Listen, each signal once.
func (in *Inbox) merge(q *queue, boot chan os.Signal) {
	for {
		select {
		case sig := <-boot:
			if slices.Contains(children, sig) {
				in.onChild(sig)
			} else {
				q.push(sig)
			}
		case sig := <-in.raw[1]:
			q.push(sig)
		case sig := <-in.raw[2]:
			q.push(sig)
		default:
			return
		}
	}
}

func (in *Inbox) onChild(sig os.Signal) {
	if sig == syscall.SIGCHLD {
		in.Wake()
	}
}
