// Package load swaps crank's app again and again while clients that never retry use it, and counts
// what they lose: nothing.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/demo/hammer"
	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/programs"
)

// patience is how long a single thing may take on a busy machine; nothing is asserted about less.
const patience = 60 * time.Second

// The load on each of the two sockets: so many clients of each kind, and their pause between two
// requests, which leaves something of the machine for the swaps.
const (
	clients = 3
	pause   = 2 * time.Millisecond
	tooLate = 30 * time.Second
)

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin, "test/load/everything")) }

// instance is one crank, and the load on its sockets.
type instance struct {
	t         *testing.T
	dir       string
	process   *exec.Cmd
	ended     chan struct{} // closed when process has been waited for
	client    *control.Client
	addresses map[string]address     // by the sockets' names
	loads     map[string]*hammer.Run // likewise

	good, failed, refused int // swaps
	lost                  int // requests, which a test may account for
}

// address is where a socket can be reached.
type address struct{ network, address string }

// start starts crank with these flags on a TCP and on a unix socket, and waits until the app serves.
func start(t *testing.T, flags []string, app ...string) *instance {
	t.Helper()
	return startOn(t, []string{web, local}, flags, app...)
}

// What crank binds. DIR is its directory, here and in its flags.
const (
	web    = "web=127.0.0.1:0"
	local  = "local=unix://DIR/web.sock"
	secure = "tls=127.0.0.1:0"
	echo   = "echo=udp://127.0.0.1:0"
)

func startOn(t *testing.T, binds, flags []string, app ...string) *instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "load-") // shorter than t.TempDir, for sun_path
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "crank.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := os.WriteFile(filepath.Join(dir, garbage), []byte("\x00\x01\x02"), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-name", "load", "-prefix", dir, "-stop", "90s"}
	for _, bind := range binds {
		args = append(args, "-bind", strings.ReplaceAll(bind, "DIR", dir))
	}
	i := &instance{t: t, dir: dir, ended: make(chan struct{})}
	for _, flag := range flags {
		args = append(args, strings.ReplaceAll(flag, "DIR", dir))
	}
	i.process = exec.Command(filepath.Join(bin, "crank"), slices.Concat(args, []string{"--"}, app)...)
	i.process.Env, i.process.Stdout, i.process.Stderr = processes.Environment(), log, log
	if err := i.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		i.process.Wait()
		close(i.ended)
	}()
	t.Cleanup(i.end)
	if i.client, err = control.NewClient(filepath.Join(dir, "load.ctl"), ""); err != nil {
		t.Fatal(err)
	}
	i.find(len(binds))
	return i
}

// find waits for the first generation and asks where it serves on its sockets.
func (i *instance) find(sockets int) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, err := i.client.Wait(ctx, "ready", 0, nil)
		if err == nil {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond): // its control socket is not there yet
		case <-i.ended:
			i.t.Fatal("crank has ended")
		case <-ctx.Done():
			i.t.Fatalf("crank does not become ready: %v", err)
		}
	}
	info, err := i.client.Info(ctx)
	if err != nil || len(info.Sockets) != sockets {
		i.t.Fatalf("info shows the sockets %v, error %v", info.Sockets, err)
	}
	i.addresses = map[string]address{}
	for _, s := range info.Sockets {
		network, bound, _ := strings.Cut(s.Bound, "://")
		i.addresses[s.Name] = address{network, bound}
	}
}

// load starts clients on both sockets.
func (i *instance) load() {
	i.loads = map[string]*hammer.Run{}
	for name, at := range i.addresses {
		i.loads[name] = hammer.Start(hammer.Load{
			Network: at.network, Address: at.address, KeepAlive: clients, Short: clients, Pause: pause, Timeout: tooLate,
		})
	}
}

// seen returns the number of requests so far.
func (i *instance) seen() (requests int) {
	for _, l := range i.loads {
		requests += l.Report().Requests
	}
	return requests
}

// traffic waits until n more requests were answered.
func (i *instance) traffic(n int) {
	i.t.Helper()
	until, deadline := i.seen()+n, time.After(patience)
	for i.seen() < until {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			i.t.Fatalf("only %d requests, want %d", i.seen(), until)
		}
	}
}

// stop ends the clients, prints what they saw, and returns it as one report. What was lost beyond
// i.lost fails the test.
func (i *instance) stop() hammer.Report {
	i.t.Helper()
	sum := hammer.Report{Kinds: map[hammer.Kind]int{}, Bodies: map[string]int{}}
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tsocket\trequests\tconnections\tlost\tp50\tp99\tlongest")
	for _, name := range slices.Sorted(maps.Keys(i.loads)) {
		r := i.loads[name].Stop()
		fmt.Fprintf(w, "\t%s\t%d\t%d\t%d %s\t%v\t%v\t%v\n", name, r.Requests, r.Connections, r.Lost, kinds(r.Kinds),
			r.P50.Round(time.Microsecond), r.P99.Round(time.Microsecond), r.Longest.Round(time.Microsecond))
		sum.Requests += r.Requests
		sum.Lost += r.Lost
		sum.Errors = append(sum.Errors, r.Errors...)
		add(sum.Kinds, r.Kinds)
		add(sum.Bodies, r.Bodies)
		if r.Requests < 100 {
			i.t.Errorf("%s: only %d requests", name, r.Requests)
		}
	}
	w.Flush()
	i.loads = nil
	i.t.Logf("swaps: %d good, %d failed, %d refused\n%s", i.good, i.failed, i.refused, table.String())
	if sum.Lost > i.lost {
		i.t.Errorf("%d requests lost, may be %d:\n%s", sum.Lost, i.lost, strings.Join(sum.Errors, "\n"))
	}
	return sum
}

func add[K comparable](to, from map[K]int) {
	for k, n := range from {
		to[k] += n
	}
}

// kinds prints the kinds of what was lost: "(2 EOF, 1 reset)".
func kinds(of map[hammer.Kind]int) string {
	if len(of) == 0 {
		return ""
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		list = append(list, fmt.Sprint(of[k], " ", k))
	}
	return "(" + strings.Join(list, ", ") + ")"
}

// run swaps to command by the control socket. Where too many generations are draining it waits for
// them and asks again.
func (i *instance) run(request control.RunRequest, command ...string) *control.Result {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request.Wait, request.Command = true, command
	for {
		result, err := i.client.Run(ctx, request, nil)
		var answer *control.Error
		if errors.As(err, &answer) && answer.Code == control.CodeDraining {
			i.refused++
			i.idle()
			continue
		}
		if result == nil {
			i.t.Fatalf("run %q: %v", command, err)
		}
		return result
	}
}

// idle waits until the current generation is the only one.
func (i *instance) idle() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := i.client.Wait(ctx, "idle", 0, nil); err != nil {
		i.t.Fatalf("waiting for idle: %v", err)
	}
}

// swap runs a good version, which must become current.
func (i *instance) swap(command ...string) *control.Result {
	i.t.Helper()
	result := i.run(control.RunRequest{}, command...)
	if !result.OK || result.Current != result.Generation {
		i.t.Fatalf("swap to %q: %+v", command, result)
	}
	i.good++
	return result
}

// current returns the generation that serves.
func (i *instance) current() (generation, pid int) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := i.client.Info(ctx)
	if err != nil || info.Current == nil {
		i.t.Fatalf("info: %+v, error %v", info, err)
	}
	return info.Current.Generation, info.Current.PID
}

// end ends the clients, crank and, by that, the app. It must take no force, and leave no process.
func (i *instance) end() {
	for _, l := range i.loads {
		l.Stop()
	}
	i.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-i.ended:
		if !i.process.ProcessState.Success() {
			i.t.Errorf("crank ended with %v", i.process.ProcessState)
		}
	case <-time.After(patience):
		i.t.Error("crank does not end on TERM")
		i.process.Process.Kill()
		<-i.ended
	}
	for _, pid := range i.apps() {
		i.t.Errorf("process %d is left", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if log, err := os.ReadFile(filepath.Join(i.dir, "crank.log")); i.t.Failed() && err == nil {
		i.t.Logf("the end of crank's log:\n%s", log[max(0, len(log)-8<<10):])
	}
	os.RemoveAll(i.dir)
}

// apps returns the processes that were started by this crank, by what it says to them.
func (i *instance) apps() []int {
	return processes.With("CRANK_CTL=" + filepath.Join(i.dir, "load.ctl"))
}

// app is the command of the app under test. Its connections have more time than its clients.
func app(flags ...string) []string {
	return append([]string{filepath.Join(bin, "app"), "-drain", "80s"}, flags...)
}

func dialUnix(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}
