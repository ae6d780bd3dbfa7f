package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/processes"
)

// event is something that happens. do returns when it is over; what it leads to may go on.
type event struct {
	name   string
	weight int
	kills  bool // an app that had requests: they may be lost
	do     func(*run, *rand.Rand)
}

var events = []event{
	{"a good swap", 6, false, func(r *run, _ *rand.Rand) { r.swap() }},
	{"a swap to an app that leaves a process in the background", 2, false, func(r *run, _ *rand.Rand) {
		r.swap("-order", "double-fork", "-orphan-life", "2s")
	}},
	{"a candidate that is not there", 1, false, func(r *run, _ *rand.Rand) { r.kept("", "/nowhere/app") }},
	{"a candidate that exits 0", 1, false, func(r *run, _ *rand.Rand) { r.kept("", r.program, "-exit", "0") }},
	{"a candidate that exits 3", 1, false, func(r *run, _ *rand.Rand) { r.kept("", r.program, "-exit", "3") }},
	{"a candidate that is killed", 1, false, func(r *run, _ *rand.Rand) { r.kept("", r.program, "-die", "SEGV", "-never-ready") }},
	{"a candidate that is never ready", 1, false, func(r *run, _ *rand.Rand) { r.kept("0.3", r.program, "-never-ready") }},
	{"a candidate that stops itself", 1, false, func(r *run, _ *rand.Rand) { r.kept("0.3", r.program, "-order", "stop") }},
	{"a candidate that says it has failed", 1, false, func(r *run, _ *rand.Rand) { r.kept("", r.program, "-fail", "no database") }},
	{"a candidate that forks a daemon", 1, false, func(r *run, _ *rand.Rand) {
		r.kept("", r.program, "-order", "daemon", "-orphan-life", "1s")
	}},
	{"a candidate that is aborted", 1, false, (*run).abort},
	{"HUP", 3, false, func(r *run, _ *rand.Rand) { r.signal(syscall.SIGHUP) }},
	{"a burst of signals", 2, false, (*run).burst},
	{"the app is killed", 2, true, func(r *run, _ *rand.Rand) { r.kill() }},
	{"the app is killed in the moment of the candidate's READY=1", 1, true, func(r *run, _ *rand.Rand) {
		_, pid := r.current()
		r.swap("-kill-at-ready", fmt.Sprint(pid))
	}},
	{"no descriptor is left for a while", 2, false, (*run).exhaust},
	{"the runtime directory is deleted", 2, false, func(r *run, _ *rand.Rand) { r.remove(r.prefix) }},
	{"the control socket is deleted", 1, false, func(r *run, _ *rand.Rand) { r.remove(filepath.Join(r.prefix, "app.ctl")) }},
	{"the binary is cut off for a while", 2, false, (*run).cutOff},
	{nothing, 8, false, func(*run, *rand.Rand) {}},
}

// pressure is what can happen beside an event, or alone. It costs time and nothing else.
type pressure struct {
	name string
	do   func(*run, *rand.Rand) error
}

var pressures = []pressure{
	{"the app is stopped for a while", func(r *run, random *rand.Rand) error { return pause(r.app(), random) }},
	{"crank is stopped for a while", func(r *run, random *rand.Rand) error { return pause(r.pid(), random) }},
	{"a flood of notifications", (*run).floodNotify},
	{"slow clients on the control socket", (*run).slowClients},
	{"scrapes", (*run).scrape},
}

// app returns the process that serves; 0 where nobody can say.
func (r *run) app() int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := control.NewClient(filepath.Join(r.prefix, "app.ctl"), "") // r.client is the event's
	if err != nil {
		return 0
	}
	info, err := client.Info(ctx)
	if err != nil || info.Current == nil {
		return 0
	}
	return info.Current.PID
}

// current returns the generation that serves, and its process.
func (r *run) current() (generation, pid int) {
	r.Helper()
	r.eventually("one is current", func(ctx context.Context) error {
		info, err := r.client.Info(ctx)
		if err == nil && info.Current == nil {
			err = errors.New("none is")
		}
		if err == nil {
			generation, pid = info.Current.Generation, info.Current.PID
		}
		return err
	})
	return generation, pid
}

// run swaps to a command, and waits for the outcome. While something is in the way it asks again.
func (r *run) run(request control.RunRequest) (result *control.Result) {
	r.Helper()
	request.Wait = true
	r.eventually("the swap is admitted", func(ctx context.Context) (err error) {
		result, err = r.client.Run(ctx, request, nil)
		var answer *control.Error
		if errors.As(err, &answer) && answer.Refused() {
			return err
		}
		if result == nil {
			return fmt.Errorf("run %q: %w", request.Command, err)
		}
		return nil
	})
	return result
}

// swap swaps to a good version.
func (r *run) swap(flags ...string) {
	r.Helper()
	r.bodies++
	command := append([]string{r.program, "-drain", "50s", "-body", fmt.Sprint("version ", r.bodies)}, flags...)
	if result := r.run(control.RunRequest{Command: command}); !result.OK {
		r.Fatalf("swap to %q: %+v", command, result)
	}
}

// kept swaps to a version that must fail, and leave the one that serves alone.
func (r *run) kept(start string, command ...string) {
	r.Helper()
	result := r.run(control.RunRequest{Command: command, Start: start})
	if result.OK || result.Current == result.Generation || result.Current != result.From {
		r.Fatalf("the one that serves should serve on: %+v", result)
	}
}

// abort starts a candidate that is never ready, and stops it.
func (r *run) abort(*rand.Rand) {
	r.Helper()
	r.eventually("a candidate is aborted", func(ctx context.Context) error {
		_, err := r.client.Run(ctx, control.RunRequest{Command: []string{r.program, "-never-ready"}}, nil)
		if err != nil {
			return err
		}
		_, err = r.client.Abort(ctx)
		return err
	})
}

// burst sends signals that ask for a swap or mean nothing to the app.
func (r *run) burst(random *rand.Rand) {
	signals := []syscall.Signal{syscall.SIGHUP, syscall.SIGWINCH, syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGPIPE}
	for range 20 + random.IntN(200) {
		r.signal(signals[random.IntN(len(signals))])
	}
}

// kill kills the one that serves. crank starts another one.
func (r *run) kill() {
	r.Helper()
	generation, pid := r.current()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		r.Fatal(err)
	}
	r.eventually("another one serves", func(context.Context) error {
		if now, _ := r.current(); now == generation {
			return errors.New("it is the same one")
		}
		return nil
	})
}

// pause stops a process for a moment.
func pause(pid int, random *rand.Rand) error {
	length := time.Duration(random.IntN(500)) * time.Millisecond
	if pid == 0 {
		return nil
	}
	err := syscall.Kill(pid, syscall.SIGSTOP)
	if err == nil {
		time.Sleep(length)
		err = syscall.Kill(pid, syscall.SIGCONT)
	}
	if err == syscall.ESRCH {
		return nil // it was replaced meanwhile
	}
	return err
}

// floodNotify sends what has no effect, as fast as it is taken.
func (r *run) floodNotify(random *rand.Rand) error {
	n := random.IntN(2000)
	address := processes.Variable(r.app(), "NOTIFY_SOCKET")
	conn, err := net.Dial("unixgram", address)
	if err != nil {
		n = 0 // the app was replaced meanwhile, or the directory is gone
	} else {
		defer conn.Close()
	}
	for range n {
		conn.SetDeadline(time.Now().Add(time.Second))
		io.WriteString(conn, "STATUS=a flood\nX_UNKNOWN=1")
	}
	return nil
}

// slowClients begin requests that they do not finish, and go away.
func (r *run) slowClients(random *rand.Rand) error {
	n, length := 1+random.IntN(150), time.Duration(random.IntN(300))*time.Millisecond
	var held []net.Conn
	for range n {
		conn, err := net.DialTimeout("unix", filepath.Join(r.prefix, "app.ctl"), time.Second)
		if err != nil {
			continue // the queue is full, or the directory is gone
		}
		held = append(held, conn)
		io.WriteString(conn, "POST /v1/run HTTP/1.1\r\nHost: crank\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"com")
	}
	err := r.process.Process.Signal(syscall.SIGHUP)
	time.Sleep(length) // this is how long they are there
	for _, conn := range held {
		conn.Close()
	}
	return err
}

// scrape asks for the metrics, many at a time.
func (r *run) scrape(random *rand.Rand) error {
	var clients sync.WaitGroup
	for range 1 + random.IntN(100) {
		clients.Go(func() { _ = r.get(r.http, "/metrics") }) // a connection too many is closed
	}
	clients.Wait()
	return nil
}

// exhaust leaves crank no descriptor while a swap is asked for, which fails.
func (r *run) exhaust(random *rand.Rand) {
	r.Helper()
	var old unix.Rlimit
	r.must(unix.Prlimit(r.pid(), unix.RLIMIT_NOFILE, nil, &old))
	r.must(unix.Prlimit(r.pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: old.Max}, nil))
	r.signal(syscall.SIGHUP)
	time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond) // this is how long it lasts
	r.must(unix.Prlimit(r.pid(), unix.RLIMIT_NOFILE, &old, nil))
}

// remove deletes a file or a directory of crank's, and asks for a swap.
func (r *run) remove(path string) {
	r.Helper()
	r.eventually("it is deleted", func(context.Context) error { return os.RemoveAll(path) }) // crank may be making files in it
	r.signal(syscall.SIGHUP)
}

// cutOff breaks the binary: a candidate fails.
func (r *run) cutOff(random *rand.Rand) {
	r.Helper()
	share := 0.9 * random.Float64() // its end is nothing that it needs
	r.must(r.replace(func(b []byte) []byte { return b[:int(share*float64(len(b)))] }))
	r.kept("", r.program)
	r.must(r.replace(func(b []byte) []byte { return b }))
}
