package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/test/disguise"
)

// process returns a process that does not exist.
func process(n int) proc.Entry { return proc.Entry{PID: 1<<30 + n, Start: 1} }

// environs is a machine whose processes show the environments that the test wants.
type environs struct {
	show  func(pid int) (map[string]string, error)
	mu    sync.Mutex
	reads map[int]int
	all   int
	most  int // concurrent readers
	now   int
}

func (e *environs) read(pid int) (map[string]string, error) {
	e.mu.Lock()
	e.reads[pid]++
	e.all++
	e.now++
	e.most = max(e.most, e.now)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.now--
	}()
	return e.show(pid)
}

// claimsOf returns claims that read from e.
func claimsOf(e *environs) *claims {
	c := newClaims("web", func() {})
	e.reads = map[int]int{}
	c.environ = e.read
	return c
}

func of(generation string) map[string]string {
	return map[string]string{"CRANK_GENERATION": generation, "CRANK_NAME": "web", "LISTEN_PID": "7"}
}

func TestClaims(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"each is read once": func(t *testing.T) {
			e := &environs{show: func(int) (map[string]string, error) { return of("3"), nil }}
			c := claimsOf(e)
			for range 10 {
				for i := range 50 {
					c.ask(process(i))
				}
				synctest.Wait()
			}
			n, pid, ok := c.ask(process(1)).says()
			if e.all != 50 || n != 3 || pid != "7" || !ok {
				t.Errorf("%d reads; it says %d, %q, %v", e.all, n, pid, ok)
			}
		},
		"of another instance, or of none": func(t *testing.T) {
			for _, values := range []map[string]string{{}, of("x"), {"CRANK_GENERATION": "3"}, {"CRANK_GENERATION": "3", "CRANK_NAME": "db"}} {
				c := claimsOf(&environs{show: func(int) (map[string]string, error) { return values, nil }})
				cl := c.ask(process(1))
				synctest.Wait()
				if n, _, ok := cl.says(); n != 0 || !ok {
					t.Errorf("%q: generation %d, %v", values, n, ok)
				}
			}
		},
		"many without an environment take no longer than one": func(t *testing.T) {
			e := &environs{show: func(int) (map[string]string, error) { return nil, proc.ErrNoEnviron }}
			c := claimsOf(e)
			begin := time.Now()
			var all []*claim
			for i := range 300 {
				all = append(all, c.ask(process(i)))
			}
			for _, cl := range all {
				cl.wait()
				if n, _, ok := cl.says(); n != 0 || !ok {
					t.Fatalf("generation %d, %v", n, ok)
				}
			}
			if took := time.Since(begin); took != 255*time.Millisecond || e.reads[process(1).PID] != 1+len(looksAgain) {
				t.Errorf("it took %v and %d looks at each", took, e.reads[process(1).PID])
			}
		},
		"a late environment does not delay a new process": func(t *testing.T) {
			begin := time.Now()
			c := claimsOf(&environs{show: func(pid int) (map[string]string, error) {
				if pid == process(1).PID && time.Since(begin) < 30*time.Millisecond {
					return nil, proc.ErrNoEnviron
				}
				return of("3"), nil
			}})
			late := c.ask(process(1))
			time.Sleep(20 * time.Millisecond)
			c.ask(process(2)).wait()
			if took := time.Since(begin); took != 20*time.Millisecond {
				t.Errorf("the new one was answered after %v", took)
			}
			late.wait()
			if n, _, _ := late.says(); n != 3 || time.Since(begin) != 55*time.Millisecond {
				t.Errorf("generation %d after %v", n, time.Since(begin))
			}
		},
		"hanging reads": func(t *testing.T) {
			hang := make(chan struct{})
			e := &environs{show: func(int) (map[string]string, error) { <-hang; return of("3"), nil }}
			c := claimsOf(e)
			for i := range 300 {
				c.ask(process(i))
			}
			begin, last := time.Now(), c.ask(process(299))
			synctest.Wait()
			if last.wait(); time.Since(begin) != claimTimeout || last.pending() {
				t.Errorf("waited for %v, pending: %v", time.Since(begin), last.pending())
			}
			if _, _, ok := last.says(); ok || e.most != claimReaders {
				t.Errorf("answered: %v; %d concurrent reads", ok, e.most)
			}
			close(hang)
			synctest.Wait()
			if n, _, _ := last.says(); n != 3 {
				t.Errorf("it finally says %d", n)
			}
		},
		"out of descriptors": func(t *testing.T) {
			err := error(syscall.EMFILE)
			c := claimsOf(&environs{show: func(int) (map[string]string, error) { return of("3"), err }})
			c.ask(process(1)).wait()
			err = nil
			cl := c.ask(process(1))
			cl.wait()
			if n, _, _ := cl.says(); n != 3 {
				t.Errorf("asked again, it says %d", n)
			}
		},
		"claims of dead processes are dropped": func(t *testing.T) {
			c := claimsOf(&environs{show: func(int) (map[string]string, error) { return of("3"), nil }})
			own, _ := proc.Lookup(os.Getpid())
			c.ask(own)
			for i := range 10 * manyClaims {
				c.ask(process(i))
				synctest.Wait()
			}
			if len(c.known) > manyClaims || c.known[identityOf(own)] == nil {
				t.Errorf("%d kept; the one of the running process: %v", len(c.known), c.known[identityOf(own)])
			}
		},
		"closed while waiting": func(t *testing.T) {
			c := claimsOf(&environs{show: func(int) (map[string]string, error) { return nil, proc.ErrNoEnviron }})
			c.ask(process(1))
			synctest.Wait()
			c.close()
			if synctest.Wait(); c.readers != 0 {
				t.Errorf("%d readers", c.readers)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}

// daemon launches an app with a process that has left its group, its session and its parents, and that ignores no signal. It writes its
// signals to OUT.
func (b *bench) daemon(n int, env ...string) (ch *child, out *lines, orphan int) {
	b.t.Helper()
	ch, out = b.shell(n, `setsid sh -c '(trap "echo TERM > $OUT; exit" TERM; echo $(exec sh -c "echo \$PPID") > "$OUT"; while :; do sleep 0.01; done) & exit 0'
		echo started > "$OUT"; kill -STOP $$`, env...)
	for range 2 { // in either order
		if line := out.next(); line != "started" {
			orphan, _ = strconv.Atoi(line)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		e, ok := proc.Lookup(orphan)
		if ok && e.Parent == os.Getpid() {
			return ch, out, orphan
		}
		if !ok || time.Now().After(deadline) {
			b.t.Fatalf("not an orphan: %+v", e)
		}
	}
}

// hang makes every read of an environment wait until release is called.
func (b *bench) hang() (reading chan int, release func()) {
	reading, held := make(chan int, 100), make(chan struct{})
	read := b.claims.environ
	b.claims.environ = func(pid int) (map[string]string, error) {
		reading <- pid
		<-held
		return read(pid)
	}
	release = sync.OnceFunc(func() { close(held) })
	b.t.Cleanup(release)
	return reading, release
}

// TestUnreadableOrphan: while the environment of an orphan cannot be read, nothing on the supervisor's goroutine waits for it and no lock
// is held; once it is read, the orphan gets the signals that were meant for it.
func TestUnreadableOrphan(t *testing.T) {
	b := newBench(t, nil)
	b.claims.timeout = patience // TestClaims covers the timeout
	reading, release := b.hang()
	ch, out, orphan := b.daemon(2)
	answered := make(chan string)
	go func() { answered <- b.strange(2, notify.Sender{PID: orphan}) }()
	if pid := <-reading; pid != orphan {
		t.Errorf("read the environment of %d, not of %d", pid, orphan)
	}
	// None of these calls would return if it waited for the read, or for a lock that is held meanwhile.
	ch.Promote()
	if err := ch.SetMain(orphan); !errors.Is(err, errStranger) {
		t.Errorf("as the main process: %v", err)
	}
	if err := ch.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	b.exit(ch)
	if n := ch.Others(syscall.SIGTERM); n != 1 {
		t.Errorf("%d others, want the unknown one", n)
	}
	if n := b.Strays(0); n != 1 {
		t.Errorf("%d strays, want the unknown one", n)
	}
	release()
	if why := <-answered; why != "" {
		t.Errorf("refused: %s", why)
	}
	<-b.woken // to ask again
	if n := ch.Others(0); n == 0 {
		t.Error("no others")
	}
	if got := out.next(); got != "TERM" {
		t.Errorf("the orphan got %q", got)
	}
	b.noOthers(ch)
}

// TestNobodyOwnsIt: if no generation is left, no environment is read.
func TestNobodyOwnsIt(t *testing.T) {
	b := newBench(t, nil)
	ch, _, orphan := b.daemon(1)
	if err := ch.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	b.exit(ch)
	ch.Close()
	var reads atomic.Int32
	b.claims.environ = func(int) (map[string]string, error) { reads.Add(1); return nil, nil }
	if n := b.Strays(syscall.SIGKILL); n == 0 || reads.Load() != 0 { // the orphan, and its sleep
		t.Errorf("%d strays, %d reads", n, reads.Load())
	}
	b.reap(orphan)
}

// TestOrphanOOMScore: an orphan of the candidate gets crank's score back once it is known to be one.
func TestOrphanOOMScore(t *testing.T) {
	b := newBench(t, nil)
	ch, out, orphan := b.daemon(2)
	ch.Promote()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", orphan))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(score)) == b.oomScore() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("its score is %s", score)
		}
	}
	if err := ch.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	b.exit(ch)
	ch.Others(syscall.SIGTERM)
	if got := out.next(); got != "TERM" {
		t.Errorf("the orphan got %q", got)
	}
	b.noOthers(ch)
}

// TestMainIsOrphan: MAINPID= can name an orphan that only its environment assigns to the generation, since the message waits for that.
// When it exits, the launched process is the main process again, as if crank had not been the orphan's parent.
func TestMainIsOrphan(t *testing.T) {
	b := newBench(t, nil)
	ch, _, orphan := b.daemon(1)
	launched := ch.PID()
	go ch.onNotice(notify.Sender{PID: ch.PID()}, notify.Message{MainPID: orphan})
	<-b.notices
	if err := ch.SetMain(orphan); err != nil || ch.PID() != orphan {
		t.Fatalf("%v; the main process is %d, not %d", err, ch.PID(), orphan)
	}
	b.mainEnds(ch, launched)
	if ch.main.IsGone() {
		t.Error("the generation has ended")
	}
	if err := ch.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	b.reap(launched)
	ch.Gone()
	b.seeOff(ch)
}

// TestDisguisedOrphans: orphans that show an environment of 64 GiB, or hide theirs, send messages and are looked for. Of each, no more
// is read than the longest possible environment.
func TestDisguisedOrphans(t *testing.T) {
	const orphans, looks, mayRead = 5, 20, 6 << 20
	for _, what := range []string{disguise.Huge, disguise.Empty} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t, nil)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			before := readSoFar(t)
			ch, out := b.shell(1, `for i in 1 2 3 4 5; do setsid sh -c '"$SELF" & exit 0'; done; read forever; kill -STOP $$`,
				"SELF="+self, disguised+"="+what, "CRANK_PID="+strconv.Itoa(os.Getpid()))
			var pids []int
			for range orphans {
				if s := <-b.notices; s.message.Status != "disguised" {
					t.Errorf("got %+v", s)
				}
				pids = append(pids, out.number())
			}
			if n := len(b.Members(1)); n != 1 {
				t.Errorf("%d members, want only the main process", n)
			}
			for range looks {
				ch.Others(0)
			}
			all, err := proc.Processes()
			if err != nil {
				t.Fatal(err)
			}
			// In addition to environments, a line is read for each process and look.
			if read, may := readSoFar(t)-before, orphans*mayRead+4*looks*len(all)<<10; read > may {
				t.Errorf("read %d KiB, want at most %d", read>>10, may>>10)
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				b.reap(pid)
			}
		})
	}
}

// readSoFar returns how many bytes this process has read (proc_pid_io(5)).
func readSoFar(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// disguised is the variable that turns this test binary into an orphan that shows another environment.
const disguised = "LAUNCH_TEST_DISGUISED"

// beDisguised tells crank its status and the test its pid.
func beDisguised(what string) error {
	if err := disguise.Environ(what); err != nil {
		return err
	}
	// Polled: the kernel does not report a new parent.
	for deadline := time.Now().Add(patience); strconv.Itoa(os.Getppid()) != os.Getenv("CRANK_PID"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("crank has not adopted it")
		}
	}
	fd, err := strconv.Atoi(os.Getenv("NOTIFY_FD"))
	if err != nil {
		return err
	}
	if _, err := syscall.Write(fd, []byte("STATUS=disguised")); err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv("OUT"), fmt.Appendln(nil, os.Getpid()), 0); err != nil {
		return err
	}
	time.Sleep(patience) // the test kills it before that
	return nil
}

// TestLookIsLinear: finding the owners of processes takes one step for each, however they descend from each other. If all ancestors of
// each were looked at, this many would take hours.
func TestLookIsLinear(t *testing.T) {
	const processes = 500_000
	self := os.Getpid()
	c := claimsOf(&environs{show: func(int) (map[string]string, error) { return nil, nil }})
	k := &look{table: proc.Table{}, claims: c, heads: map[int]head{}, alive: map[int]bool{}, found: map[int]belonging{}}
	for pid := 10_000_000; pid < 10_000_000+processes; pid++ {
		k.table[pid] = proc.Entry{PID: pid, Parent: pid - 1, Group: 1, Session: 1}
	}
	last := 10_000_000 + processes - 1
	k.heads[10_000_000] = head{generation: 3}
	ended := make(chan int)
	go func() {
		all, _ := k.members(3, self)
		ended <- len(all)
	}()
	select {
	case n := <-ended:
		if n != processes || k.owner(last).generation != 3 {
			t.Errorf("%d members", n)
		}
	case <-time.After(patience):
		t.Error("it takes too long")
	}
	ring := &look{table: proc.Table{7: {PID: 7, Parent: 8}, 8: {PID: 8, Parent: 7}}, claims: c, found: map[int]belonging{}}
	if b := ring.owner(7); b != (belonging{}) {
		t.Errorf("in a ring: %+v", b)
	}
}
