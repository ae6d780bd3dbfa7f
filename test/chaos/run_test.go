package chaos

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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/processes"
)

// patience is how long anything may take: on a busy machine, and after the longest pause between two restarts.
const patience = 2 * time.Minute

// mark is in the environment of all processes of a run.
const mark = "CHAOS_RUN"

// run is one crank under load.
type run struct {
	*testing.T
	dir, prefix   string
	program       string // a copy of the app, which events may break
	process       *exec.Cmd
	ended         chan struct{} // closed when process has been waited for
	client        *control.Client
	address, http string
	load          *hammer.Run
	script        []string // what has happened

	descriptors, goroutines int // at rest, before anything happened
	lost                    int // requests, so far
	generations             int
	bodies                  int
}

func start(t *testing.T) *run {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // short, for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &run{T: t, dir: dir, prefix: filepath.Join(dir, "p"), program: filepath.Join(dir, "app"), ended: make(chan struct{})}
	t.Cleanup(r.clean)
	r.must(r.replace(func(b []byte) []byte { return b }))
	log, err := os.Create(filepath.Join(dir, "log"))
	r.must(err)
	defer log.Close()
	r.process = exec.Command(filepath.Join(bin, "crank"), "-prefix", r.prefix, "-bind", "127.0.0.1:0", "-http", "127.0.0.1:0",
		"-settle", "50ms", "-stop", "60s", "-restart", "always", "--", r.program, "-drain", "50s")
	r.process.Env, r.process.Stdout, r.process.Stderr = processes.Environment(mark+"="+dir), log, log
	r.must(r.process.Start())
	go func() {
		r.process.Wait()
		close(r.ended)
	}()
	r.client, err = control.NewClient(filepath.Join(r.prefix, "app.ctl"), "")
	r.must(err)
	r.find()
	return r
}

// find waits for the first generation, notes what crank has at rest, and starts the load.
func (r *run) find() {
	r.Helper()
	var info control.Info
	r.eventually("crank is ready", func(ctx context.Context) (err error) {
		if info, err = r.client.Info(ctx); err == nil && info.Current == nil {
			err = errors.New("nothing serves")
		}
		return err
	})
	_, r.address, _ = strings.Cut(info.Sockets[0].Bound, "://")
	_, r.http, _ = strings.Cut(info.HTTP, "://")
	r.must(r.get(r.http, "/metrics"))
	r.eventually("crank is at rest", func(ctx context.Context) error {
		before := r.descriptors
		info, err := r.client.Info(ctx)
		r.descriptors, r.goroutines = processes.Descriptors(r.pid()), info.Goroutines
		if err == nil && r.descriptors != before {
			err = errors.New("the number of descriptors changes")
		}
		return err
	})
	r.load = hammer.Start(hammer.Load{
		Network: "tcp", Address: r.address, KeepAlive: 4, Short: 2, Pause: 5 * time.Millisecond, Timeout: patience,
	})
}

func (r *run) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *run) pid() int { return r.process.Process.Pid }

func (r *run) signal(s syscall.Signal) {
	r.Helper()
	r.must(r.process.Process.Signal(s))
}

// replace puts a changed copy of the app in the place of the program.
func (r *run) replace(change func([]byte) []byte) error {
	return processes.ReplaceProgram(r.program, filepath.Join(bin, "app"), change)
}

// errEnded is what there is no use to wait for any longer.
var errEnded = errors.New("crank has ended")

// eventually tries again until there is no error, or crank has ended.
func (r *run) eventually(what string, try func(ctx context.Context) error) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-r.ended:
			r.Fatalf("%s: %v", what, errEnded)
		case <-ctx.Done():
			r.Fatalf("%s: %v", what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// get asks for a page on a new connection.
func (r *run) get(address, path string) error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// holds checks what is so after every event: crank answers, one generation is current or soon will be, the app answers.
func (r *run) holds() {
	r.Helper()
	r.eventually("one generation serves", func(ctx context.Context) error {
		status, err := r.client.Status(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, g := range status.Generations {
			if g.State == "ready" {
				n++
			}
			r.generations = max(r.generations, g.Generation)
		}
		if n > 1 {
			r.Fatalf("%d generations are current: %+v", n, status.Generations)
		}
		if n == 0 || status.Current == 0 || !status.Ready {
			return fmt.Errorf("%d serve, ready: %v %s", n, status.Ready, status.Reason)
		}
		return nil
	})
	r.eventually("the app answers", func(context.Context) error { return r.get(r.address, "/") })
}

// account counts what the clients have lost since the last time: nothing, unless the app was killed. Each client has
// been answered since, so that what was under way is known.
func (r *run) account(killed bool) {
	r.Helper()
	until := r.load.Report().Requests + 2*6 // the clients
	r.eventually("the clients are answered", func(context.Context) error {
		if n := r.load.Report().Requests; n < until {
			return fmt.Errorf("%d requests, want %d", n, until)
		}
		return nil
	})
	report := r.load.Report()
	if lost := report.Lost - r.lost; lost > 0 && !killed {
		r.Fatalf("%d requests were lost, and no app was killed: %v %v", lost, report.Kinds, report.Errors)
	}
	r.lost = report.Lost
}

// quiet waits until nothing of what has happened is left: generations, zombies, descriptors, goroutines.
func (r *run) quiet() {
	r.Helper()
	r.eventually("crank is at rest again", func(ctx context.Context) error {
		status, err := r.client.Status(ctx)
		if err != nil {
			return err
		}
		if len(status.Generations) != 1 || !status.Ready {
			return fmt.Errorf("there are %d generations", len(status.Generations))
		}
		if z := processes.Zombies(r.pid()); len(z) > 0 {
			return fmt.Errorf("%v are zombies", z)
		}
		if left := processes.With(mark + "=" + r.dir); len(left) != 2 {
			return fmt.Errorf("not crank and one app, but %v are there", left)
		}
		return r.asBefore(ctx)
	})
	r.checkLog()
}

func (r *run) asBefore(ctx context.Context) error {
	info, err := r.client.Info(ctx)
	if err != nil {
		return err
	}
	if n := processes.Descriptors(r.pid()); n > r.descriptors || info.Goroutines > r.goroutines {
		return fmt.Errorf("%d descriptors, %d goroutines, before: %d, %d", n, info.Goroutines, r.descriptors, r.goroutines)
	}
	return nil
}

// checkLog looks for what crank may never write.
func (r *run) checkLog() {
	r.Helper()
	log, err := os.ReadFile(filepath.Join(r.dir, "log"))
	r.must(err)
	for _, text := range []string{"panic: ", "fatal error: "} {
		if bytes.Contains(log, []byte(text)) {
			r.Fatalf("crank has written %q", text)
		}
	}
}

// end ends crank, which ends with the code of the app: 0.
func (r *run) end() {
	r.Helper()
	r.signal(syscall.SIGTERM)
	select {
	case <-r.ended:
		if !r.process.ProcessState.Success() {
			r.Errorf("crank ended with %v", r.process.ProcessState)
		}
	case <-time.After(patience):
		r.Fatal("crank does not end")
	}
	if left := processes.With(mark + "=" + r.dir); len(left) > 0 {
		r.Errorf("processes %v are left", left)
	}
	r.checkLog()
}

// clean ends what a run that has failed has left.
func (r *run) clean() {
	if r.load != nil {
		defer r.load.Stop()
	}
	if r.process != nil && r.process.Process != nil {
		r.process.Process.Kill()
		<-r.ended
		for _, pid := range processes.With(mark + "=" + r.dir) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if log, err := os.ReadFile(filepath.Join(r.dir, "log")); r.Failed() && err == nil {
		r.Logf("the end of the log:\n%s", log[max(0, len(log)-12<<10):])
	}
	os.RemoveAll(r.dir)
}
