package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/processes"
)

// patience is how long a single thing may take on a busy machine; nothing is asserted about less.
const patience = 90 * time.Second

// mark is in the environment of all processes of a cell.
const mark = "FAULTS_CELL"

// cell is one crank, with what is to happen to it.
type cell struct {
	*testing.T
	fault  *fault
	moment moment

	dir    string // of the cell: logs, gates
	prefix string // the runtime directory
	// What setup may change.
	flags     []string            // of crank
	app       []string            // the first command
	candidate []string            // the next ones
	wrap      []string            // what executes crank
	user      *syscall.Credential // whom crank runs as; nil: as the test
	stdout    *os.File
	stderr    *os.File

	unbound        bool     // crank has no -bind
	reader, writer *os.File // of a stream that is a pipe

	process  *exec.Cmd
	ended    chan struct{} // closed when process has been waited for
	client   *control.Client
	address  string // where the app serves
	http     string // where metrics are
	cgroup   string // in which crank was started; empty: the test's
	faulty   bool   // the fault is there
	base     int    // descriptors of crank with one generation; 0: not known
	undoing  []func()
	tried    int // the generation of the candidate
	victim   int // the generation that the fault kills
	patience time.Duration
	answered atomic.Int64 // requests of scrape
}

func newCell(t *testing.T, f *fault, m moment) *cell {
	t.Helper()
	dir, err := os.MkdirTemp("", "f") // short, for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	c := &cell{T: t, fault: f, moment: m, dir: dir, prefix: filepath.Join(dir, "p"), ended: make(chan struct{}), patience: patience}
	c.must(os.Chmod(dir, 0o755))
	c.must(os.Chmod(bin, 0o755))
	c.must(os.Mkdir(c.gates(), 0o777))
	c.must(os.Chmod(c.gates(), 0o777))
	t.Cleanup(c.clean)
	c.stdout, c.stderr = c.create("out"), c.create("log")
	settle := "50ms"
	if m == settling {
		settle = "3s"
	}
	c.flags = []string{"-settle", settle, "-http", "127.0.0.1:0"}
	program := filepath.Join(bin, "app")
	c.app, c.candidate = []string{program}, []string{program}
	switch m {
	case starting:
		c.candidate = append(c.candidate, "-ready-when", c.gate("ready"))
	case draining, stopping:
		c.app = append(c.app, "-leave-when", c.gate("leave"))
	}
	return c
}

func (c *cell) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cell) create(name string) *os.File {
	c.Helper()
	file, err := os.Create(filepath.Join(c.dir, name))
	c.must(err)
	c.Cleanup(func() { file.Close() })
	return file
}

// gates are files by whose appearance the app is told to go on.
func (c *cell) gates() string { return filepath.Join(c.dir, "g") }

func (c *cell) gate(name string) string { return filepath.Join(c.gates(), name) }

func (c *cell) open(name string) {
	c.Helper()
	c.must(os.WriteFile(c.gate(name), nil, 0o644))
}

// own gives the cell a copy of the app, which it may break.
func (c *cell) own() (path string) {
	c.Helper()
	path = filepath.Join(c.dir, "app")
	c.must(replace(path, func(b []byte) []byte { return b }))
	c.app[0], c.candidate[0] = path, path
	return path
}

// replace puts a changed copy of the app at path.
func replace(path string, change func([]byte) []byte) error {
	return processes.ReplaceProgram(path, filepath.Join(bin, "app"), change)
}

// onUndo has what a fault has begun ended, by undo or, where the test fails before, at its end.
func (c *cell) onUndo(f func()) { c.undoing = append(c.undoing, f) }

// inject makes the fault.
func (c *cell) inject() {
	c.faulty = true
	if c.fault.inject != nil {
		c.fault.inject(c)
	}
}

// check looks at what else the fault is to lead to.
func (c *cell) check(got outcome) {
	c.Helper()
	if c.fault.check != nil {
		c.fault.check(c, got)
	}
}

func (c *cell) undo() {
	for _, f := range slices.Backward(c.undoing) {
		f()
	}
	c.undoing = nil
	if c.fault.undo != nil && !c.over() {
		c.fault.undo(c)
	}
	c.faulty = false
}

// reach starts crank, brings it to the moment, and makes the fault there.
func (c *cell) reach() {
	if c.moment == beforeStart {
		if !c.fault.late {
			c.inject()
		}
		c.start()
		if c.fault.late {
			c.inject()
		}
		return
	}
	c.start()
	c.await("the first generation is ready", func(moves []move) bool { return find(moves, 1, "ready") != nil })
	c.find()
	switch c.moment {
	case starting:
		c.run(c.candidate)
		c.await("the candidate starts", func(moves []move) bool { return find(moves, 2, "starting") != nil })
	case settling:
		c.reachSettling()
		return
	case draining:
		c.run([]string{c.app[0]})
		c.await("the first one is asked to leave", func(moves []move) bool { return find(moves, 1, "stopping") != nil })
	case stopping:
		c.signal(syscall.SIGTERM)
		c.await("the app is asked to end", func(moves []move) bool { return find(moves, 1, "stopping") != nil })
	}
	c.inject()
}

// reachSettling tries again where the candidate has settled before the fault was there.
func (c *cell) reachSettling() {
	for range 5 {
		c.run(c.candidate)
		c.await("the candidate settles", func(moves []move) bool { return find(moves, c.tried, "settling") != nil })
		c.inject()
		if m := find(c.moves(), c.tried, "ready"); c.over() || m == nil || m.cause != "settled" {
			return // a cause other than the time is the fault
		}
		c.undo()
	}
	c.Fatal("the candidate settles faster than the fault comes")
}

func (c *cell) start() {
	c.Helper()
	bind := []string{"-bind", "127.0.0.1:0"}
	if c.unbound {
		bind = nil
	}
	args := slices.Concat(c.wrap, []string{filepath.Join(bin, "crank"), "-prefix", c.prefix}, bind, c.flags, []string{"--"}, c.app)
	c.process = exec.Command(args[0], args[1:]...)
	c.process.Env, c.process.Stdout, c.process.Stderr = processes.Environment(mark+"="+c.dir), c.stdout, c.stderr
	if c.user != nil {
		c.process.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	}
	c.must(c.process.Start())
	go func() {
		c.process.Wait()
		close(c.ended)
	}()
	var err error
	c.client, err = control.NewClient(filepath.Join(c.prefix, "app.ctl"), "")
	c.must(err)
}

// find asks where the app and the metrics are served, and counts descriptors.
func (c *cell) find() {
	c.Helper()
	info := c.info()
	_, c.address, _ = strings.Cut(info.Sockets[0].Bound, "://")
	_, c.http, _ = strings.Cut(info.HTTP, "://")
	c.settleDescriptors()
}

// settleDescriptors counts those that crank has with one generation, once the connection that has asked is closed.
func (c *cell) settleDescriptors() {
	previous := -1
	c.eventually("the number of descriptors stays", func() error {
		n := processes.Descriptors(c.pid())
		if n == previous {
			c.base = n
			return nil
		}
		previous = n
		return fmt.Errorf("%d", n)
	})
}

func (c *cell) pid() int { return c.process.Process.Pid }

func (c *cell) signal(s syscall.Signal) {
	c.Helper()
	if err := c.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.Fatal(err)
	}
}

// over reports whether crank has ended.
func (c *cell) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// info is what crank says about itself; it must answer.
func (c *cell) info() (info control.Info) {
	c.Helper()
	c.eventually("crank answers info", func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		info, err = c.client.Info(ctx)
		if c.over() {
			return errEnded
		}
		return err
	})
	return info
}

// errEnded is what there is no use to wait for any longer.
var errEnded = errors.New("crank has ended")

// eventually tries again until there is no error.
func (c *cell) eventually(what string, try func() error) {
	c.Helper()
	for deadline := time.Now().Add(c.patience); ; time.Sleep(5 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if errors.Is(err, errEnded) || time.Now().After(deadline) {
			c.Fatalf("%s: %v", what, err)
		}
	}
}

// await waits for something in the moves of the generations.
func (c *cell) await(what string, happened func([]move) bool) {
	c.Helper()
	c.eventually(what, func() error {
		over := c.over() // before the last look
		switch {
		case happened(c.moves()):
			return nil
		case over:
			return errEnded
		}
		return errors.New("it did not happen")
	})
}

// run asks for a swap to a command. With an error the candidate may still have been tried.
func (c *cell) run(command []string) {
	c.Helper()
	c.tried = last(c.moves()) + 1
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	_, err := c.client.Run(ctx, control.RunRequest{Command: command}, nil)
	var answer *control.Error
	if err != nil && (!errors.As(err, &answer) || answer.Code != control.CodeFailed) && !c.fault.at[c.moment].want.end() {
		c.Fatalf("run %q: %v", command, err)
	}
}

// get asks the app for a page on a new connection, and returns it.
func (c *cell) get() (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + c.address + "/")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// answers makes sure that the app serves.
func (c *cell) answers() {
	c.Helper()
	c.eventually("the app answers", func() error {
		_, err := c.get()
		return err
	})
}

// observe says what becomes of crank with the fault there.
func (c *cell) observe() outcome {
	c.Helper()
	if c.moment == beforeStart {
		return c.observeStart()
	}
	want := c.fault.at[c.moment].want
	if !want.end() {
		if !c.fault.silent {
			c.answers()
		}
		if !c.fault.unreachable {
			c.info()
		}
	}
	switch c.moment {
	case starting:
		c.open("ready")
	case ready:
		c.ask()
	case draining, stopping:
		c.open("leave")
	}
	switch {
	case want.end():
		return c.observeEnd()
	case want == restarts:
		return c.observeRestart()
	case c.moment == draining:
		return c.observeLeaving()
	}
	return c.observeCandidate()
}

// ask asks for a swap in a way that the fault does not keep from crank.
func (c *cell) ask() {
	c.Helper()
	switch want := c.fault.at[c.moment].want; {
	case want.end() || want == restarts:
	case c.fault.asks:
		c.tried = 2
	case c.fault.unreachable:
		c.tried = last(c.moves()) + 1
		c.signal(syscall.SIGHUP)
	default:
		c.run(c.candidate)
	}
}

func (c *cell) observeStart() outcome {
	c.Helper()
	if c.fault.at[beforeStart].want.end() {
		return c.observeEnd()
	}
	c.await("the first generation is ready", func(moves []move) bool { return find(moves, 1, "ready") != nil })
	return starts
}

// observeEnd waits for crank's end.
func (c *cell) observeEnd() outcome {
	c.Helper()
	select {
	case <-c.ended:
		return endsWith(c.exitCode())
	case <-time.After(c.patience):
		c.Fatal("crank does not end")
		return ""
	}
}

// exitCode is crank's, as a shell shows it.
func (c *cell) exitCode() int {
	status := c.process.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func (c *cell) observeRestart() outcome {
	c.Helper()
	c.await("another one serves", func(moves []move) bool {
		return find(moves, c.victim, "exited") != nil &&
			slices.ContainsFunc(moves, func(m move) bool { return m.generation > c.victim && m.to == "ready" })
	})
	return restarts
}

func (c *cell) observeLeaving() outcome {
	c.Helper()
	c.await("the leaving one is gone", func(moves []move) bool { return find(moves, 1, "exited") != nil })
	if cause := find(c.moves(), 1, "exited").cause; cause != "exited 0" {
		return kills
	}
	return servesOn
}

func (c *cell) observeCandidate() outcome {
	c.Helper()
	c.await("the candidate is ready or has failed", func(moves []move) bool {
		return find(moves, c.tried, "ready") != nil || find(moves, c.tried, "failed") != nil
	})
	moves := c.moves()
	if find(moves, c.tried, "ready") != nil {
		return swaps
	}
	c.Logf("the candidate: %s", find(moves, c.tried, "failed").cause)
	if find(moves, 1, "stopping") != nil || find(moves, 1, "exited") != nil {
		c.Error("the one that serves is not the one that did")
	}
	if !c.fault.silent {
		c.answers()
	}
	return servesOn
}

// after checks that crank is as before: it answers, swaps, and ends.
func (c *cell) after() {
	c.Helper()
	if !c.over() && c.fault.broken {
		c.signal(syscall.SIGTERM)
		c.observeEnd()
	}
	if !c.over() {
		if c.base == 0 && c.moment == beforeStart {
			c.idle()
			c.find()
		}
		c.swapAgain()
		c.idle()
		c.answers()
		c.eventually("crank and one app are left", func() error {
			if left := c.processes(); len(left) != 2 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
		c.descriptorsAsBefore()
		c.eventually("no zombie is left", func() error {
			if z := processes.Zombies(c.pid()); len(z) > 0 {
				return fmt.Errorf("%v", z)
			}
			return nil
		})
		c.signal(syscall.SIGTERM)
		if got, want := c.observeEnd(), endsWith(c.fault.code); got != want {
			c.Errorf("in the end it %s, want %s", got, want)
		}
	}
	c.eventually("no process is left", func() error {
		if left := c.processes(); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	c.checkLog()
}

// swapAgain swaps to an app with which nothing is wrong.
func (c *cell) swapAgain() {
	c.Helper()
	good := []string{c.app[0]}
	c.info()
	c.eventually("crank takes a request", func() error {
		c.tried = last(c.moves()) + 1
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		_, err := c.client.Run(ctx, control.RunRequest{Command: good}, nil)
		return err
	})
	c.await("a good candidate is ready", func(moves []move) bool {
		if m := find(moves, c.tried, "failed"); m != nil {
			c.Fatalf("afterwards a good candidate fails: %s", m.cause)
		}
		return find(moves, c.tried, "ready") != nil
	})
}

// idle waits until one generation serves and no other is there.
func (c *cell) idle() {
	c.Helper()
	c.await("all others are gone", func(moves []move) bool {
		alive := map[int]string{}
		for _, m := range moves {
			if alive[m.generation] = m.to; m.to == "exited" || m.to == "failed" {
				delete(alive, m.generation)
			}
		}
		if len(alive) != 1 {
			return false
		}
		for _, to := range alive {
			return to == "ready"
		}
		return false
	})
}

func (c *cell) descriptorsAsBefore() {
	c.Helper()
	if c.base == 0 {
		return
	}
	c.eventually("the descriptors are as before", func() error {
		if n := processes.Descriptors(c.pid()); n > c.base {
			return fmt.Errorf("%d, before %d", n, c.base)
		}
		return nil
	})
}

// checkLog looks for what crank may never write.
func (c *cell) checkLog() {
	c.Helper()
	log, err := os.ReadFile(filepath.Join(c.dir, "log"))
	c.must(err)
	for _, text := range []string{"panic: ", "fatal error: "} {
		if strings.Contains(string(log), text) {
			c.Errorf("crank has written %q", text)
		}
	}
}

// clean ends what a cell that has failed has left.
func (c *cell) clean() {
	c.end()
	if log, err := os.ReadFile(filepath.Join(c.dir, "log")); c.Failed() && err == nil {
		if i := bytes.Index(log, []byte("\nruntime: ")); i >= 0 {
			log = log[:min(len(log), i+4<<10)] // what the Go runtime says, without the stacks of all goroutines
		}
		c.Logf("the end of the log:\n%s", log[max(0, len(log)-6<<10):])
	}
	os.RemoveAll(c.dir)
}

// end ends what a cell has begun.
func (c *cell) end() {
	for _, f := range slices.Backward(c.undoing) {
		f()
	}
	c.undoing = nil
	if c.process == nil || c.process.Process == nil {
		return
	}
	if !c.over() {
		c.process.Process.Kill()
		<-c.ended
	}
	for _, pid := range c.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// processes returns those of this cell, crank among them.
func (c *cell) processes() []int { return processes.With(mark + "=" + c.dir) }
