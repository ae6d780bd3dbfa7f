package supervisor

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
)

// A deed is one letter of a script. n is a generation: the newest, or the one before it after a "<".
type deed struct {
	letter byte
	do     func(w *world, n int)
}

var deeds = []deed{
	{'s', func(w *world, n int) { w.swap(Request{Trigger: TriggerRun, Change: Change(v1)}) }},
	{'S', func(w *world, n int) { w.swap(Request{Trigger: TriggerRun, Change: Change(v2), Force: true}) }},
	{'l', func(w *world, n int) { w.swap(Request{}) }},
	{'b', func(w *world, n int) { w.swap(Request{Trigger: TriggerRollback}) }},
	{'p', func(w *world, n int) { w.swap(Request{IfGeneration: &n, Force: true}) }},
	{'a', func(w *world, n int) { w.abort() }},
	{'k', func(w *world, n int) { w.kill(KillRequest{Signal: syscall.SIGUSR2}) }},
	{'K', func(w *world, n int) { w.kill(KillRequest{Signal: syscall.SIGKILL, PID: 1000 + n}) }},
	{'r', func(w *world, n int) { w.says(n, notify.Message{Ready: true}) }},
	{'f', func(w *world, n int) { w.says(n, notify.Message{Failed: "no", Ready: true}) }},
	{'e', func(w *world, n int) { w.says(n, notify.Message{Errno: 5}) }},
	{'q', func(w *world, n int) { w.says(n, notify.Message{Stopping: true}) }},
	{'t', func(w *world, n int) { w.says(n, notify.Message{HasStatus: true, Status: "busy"}) }},
	{'E', func(w *world, n int) { w.says(n, extend(4*time.Second)) }},
	{'F', func(w *world, n int) { w.says(n, extend(time.Hour)) }},
	{'m', func(w *world, n int) { w.says(n, notify.Message{MainPID: 2000 + 10*n, Ready: true}) }},
	{'M', func(w *world, n int) { w.says(n, notify.Message{MainPID: 2001}) }},
	{'L', func(w *world, n int) {
		w.says(n, notify.Message{Reloading: true, MonotonicUsec: uint64(time.Now().UnixMicro())})
	}},
	{'y', func(w *world, n int) {
		w.says(n, notify.Message{Reloading: true, MonotonicUsec: 1, Watchdog: notify.WatchdogPing})
	}},
	{'d', func(w *world, n int) { w.says(n, period(2*time.Second)) }},
	{'D', func(w *world, n int) { w.says(n, period(0)) }},
	{'g', func(w *world, n int) { w.says(n, ping) }},
	{'G', func(w *world, n int) { w.says(n, trigger) }},
	{'v', func(w *world, n int) { w.gate(n, nil) }},
	{'V', func(w *world, n int) { w.gate(n, errors.New("answered 503")) }},
	{'0', func(w *world, n int) { w.end(n, proc.Exit{}, 0) }},
	{'1', func(w *world, n int) { w.end(n, proc.Exit{Code: 1}, 0) }},
	{'9', func(w *world, n int) { w.end(n, proc.Exit{Code: -1, Signal: syscall.SIGKILL}, 0) }},
	{'o', func(w *world, n int) { w.end(n, proc.Exit{Code: 1}, 2) }},
	{'O', func(w *world, n int) { w.end(n, proc.Exit{}, 0) }},
	{'x', func(w *world, n int) { w.kernel.failNext(syscall.ENOENT) }},
	{'X', func(w *world, n int) { w.kernel.failNextFork(syscall.EAGAIN) }},
	{'h', func(w *world, n int) { w.kernel.setHang(true) }},
	{'i', func(w *world, n int) { w.kernel.setHang(false); w.kernel.execOver(n, nil); w.settle() }},
	{'j', func(w *world, n int) { w.kernel.setHang(false); w.kernel.execOver(n, syscall.EACCES); w.settle() }},
	{'z', func(w *world, n int) { w.kernel.setStrays(1) }},
	{'u', func(w *world, n int) { w.kernel.setUndying(true) }},
	{'w', func(w *world, n int) { w.slowTail(n) }},
	{'H', func(w *world, n int) { w.signal(syscall.SIGHUP) }},
	{'T', func(w *world, n int) { w.signal(syscall.SIGTERM) }},
	{'I', func(w *world, n int) { w.signal(syscall.SIGINT) }},
	{'U', func(w *world, n int) { w.signal(syscall.SIGUSR1) }},
	{'c', func(w *world, n int) { w.kernel.adopted(); w.settle() }},
	{'.', func(w *world, n int) { w.pass(lookInterval) }},
	{',', func(w *world, n int) { w.pass(time.Second) }},
	{';', func(w *world, n int) { w.pass(7 * time.Second) }},
	{'!', func(w *world, n int) { w.pause(30 * time.Second) }},
}

// end ends the main process of generation n, or only those that it had left behind.
func (w *world) end(n int, e proc.Exit, others int) {
	if w.kernel.child(n) == nil {
		return
	}
	w.kernel.child(n).setOthers(others)
	w.kernel.end(n, e)
	w.settle()
}

// gate is the end of generation n's check, or the result of a probe of it.
func (w *world) gate(n int, err error) {
	if c := w.kernel.child(n); c == nil || c.kind == "" {
		w.probeEnds(n, err)
	} else if err == nil {
		w.end(n, proc.Exit{}, 0)
	} else {
		w.end(n, proc.Exit{Code: 3}, 0)
	}
}

func (w *world) kill(k KillRequest) {
	w.s.Kill(w.t.Context(), k)
	w.settle()
}

func (w *world) slowTail(n int) {
	if c := w.kernel.child(n); c != nil {
		w.kernel.mu.Lock()
		defer w.kernel.mu.Unlock()
		c.tailTakes = 2 * time.Second
	}
}

// newest is the number of the newest generation that has a process.
func (w *world) newest() int {
	w.kernel.mu.Lock()
	defer w.kernel.mu.Unlock()
	if n := len(w.kernel.children); n > 0 {
		return w.kernel.children[n-1].n
	}
	return 0
}

// fuzzReady are the ways to become ready, besides none.
var fuzzReady = []Readiness{
	{},
	{Alive: 3 * time.Second},
	{Exec: []string{"/probe"}, Interval: 2 * time.Second, Timeout: time.Second},
	{Interval: 2 * time.Second, Timeout: time.Second},
}

// fuzzConfig is chosen by a script's first two bytes.
func fuzzConfig(b, c byte) Config {
	ready := fuzzReady[c>>2&3]
	ready.None = b>>6&1 == 1
	var check []string
	if c>>4&1 == 1 {
		check = []string{"/app", "-t"}
	}
	return Config{
		Ready: ready, Check: check,
		Start: 10 * time.Second, Stop: 10 * time.Second, Settle: time.Second * time.Duration(b&1),
		DrainDelay: 5 * time.Second * time.Duration(b>>1&1), Restart: Restart((b >> 2 & 3) % 3), Group: b>>4&1 == 1,
		MaxDraining: 2 * int(b>>5&1), Terminal: b>>7&1 == 1, MaxExtend: 6 * time.Second,
	}
}

// maxScript is how many bytes of a script are played.
const maxScript = 60

// FuzzScript plays a script: its first byte is the configuration, the second chooses the first command, its
// fallback, what comes before it is ready, and the watchdog; every other one is a deed. What holds after each step
// is in world.check; after a final TERM Run has to return, with every request answered.
func FuzzScript(f *testing.F) {
	for _, seed := range []string{
		"\x00\x00r", "\x01\x01rsr,0", "\x01\x01rsr<0", "\x01\x01rs<0r", "\x01\x01rs<01", "\x00\x01;;", "\x00\x011",
		"\x05\x01r1,;r1,s1,r", "\x05\x01ro,,.r", "\x09\x01r0", "\x01\x01rsrSr,a", "\x21\x01rlr,lr,lrHl;;H",
		"\x03\x01rsrT,0T", "\x03\x01rsT;I", "\x83\x01rIII", "\x41\x01l,l,T", "\x01\x02r1", "\x01\x031r", "\x01\x03x",
		"\x00\x00UUs<UHrH1", "\x01\x01rlr,<o;.<O.T", "\x01\x01ruzT;;;", "\x01\x01rlfer,bqt", "\x01\x01rw1", "\x01\x01rlw1T",
		"\x07\x01r!s!T!", "\x01\x01rsaHarpK", "\x05\x01rs<o1,,;", "\x00\x01x1cc.",
		"\x01\x01E;E;Fr", "\x01\x01rlr,<E;<F;", "\x03\x01rFTE;F;E", "\x01\x01rL,r,y;;L;;", "\x01\x21rg,g;g", "\x01\x61r;r;,;", "\x01\xa1r;1",
		"\x01\x41rG1GrG", "\x01\x81rG0", "\x01\x01m1lm,<0", "\x01\x01rMlM<mo,.", "\x03\x41rdTG;D", "\x05\x41rlrG;g!",
		"\x01\x05;r,l,,,0", "\x01\x09v,lVVv,,", "\x01\x09V,,,,,;;", "\x01\x0dv,lVr,v,1", "\x01\x0dvS!vT", "\x01\x11vrvl,Vv", "\x05\x11vr1,;vr",
		"\x01\x01rhlir,0", "\x01\x01rhljlUr", "\x01\x01rhlaTi", "\x01\x01rhs<0S;j", "\x41\x01rhlil,9", "\x01\x05rhl;i;,", "\x01\x09rhlvi9",
		"\x01\x1bvxlU<1vv,T", "\x01\x11hvr", "\x01\x11vrhlHi<1ivT", "\x05\x01rh1;;ir", "\x01\x01rXlhluT;;;", "\x01\x19v.xV,vla9;v", "\x01\x1dvvxHvS<uTT",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) >= 2 {
			synctest.Test(t, func(t *testing.T) { play(t, script[0], script[1], script[2:]) })
		}
	})
}

func play(t *testing.T, config, first byte, script []byte) {
	command := Command{}
	if first&1 == 1 {
		command = v1
	}
	cfg := fuzzConfig(config, first)
	cfg.Watchdog = Watchdog((first >> 6 & 3) % 3)
	cfg.WatchdogTimeout = 3 * time.Second * time.Duration(first>>5&1)
	w := start(t, cfg, command, func(o *Options) {
		if first&2 == 2 {
			o.Fallback = &v2
		}
	})
	n := 0
	for i, b := range script[:min(len(script), maxScript)] {
		if w.ended {
			break
		}
		if b == '<' {
			n++
			continue
		}
		d := deedOf(b)
		d.do(w, max(w.newest()-n, 0))
		n = 0
		if t.Failed() {
			t.Fatalf("after step %d, %q: %s", i, d.letter, w.states())
		}
	}
	w.leave()
}

// deedOf makes a deed of every byte.
func deedOf(b byte) deed {
	for _, d := range deeds {
		if d.letter == b {
			return d
		}
	}
	return deeds[int(b)%len(deeds)]
}

// leave sends TERM and lets time pass, but ends no process: crank has to end by itself.
func (w *world) leave() {
	if !w.ended {
		w.signal(syscall.SIGTERM)
	}
	for range 60 {
		if w.ended {
			return
		}
		w.pass(time.Second)
	}
	w.t.Fatalf("crank does not end by itself: %s", w.states())
}
