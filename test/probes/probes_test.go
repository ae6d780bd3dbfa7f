// Package probes asks a real crank, as a kubelet and Prometheus do, while its app is swapped and ends.
package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/programs"
)

const patience = time.Minute

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin)) }

// instance is one crank.
type instance struct {
	t       *testing.T
	process *exec.Cmd
	ended   chan struct{} // closed when process has been waited for
	control *control.Client
	http    *http.Client // a new connection for each request
	app     string       // the app's address
	probes  string       // the network and address of -http
}

// start starts crank with -http on uri and waits until it answers.
func start(t *testing.T, uri string, flags ...string) *instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "probes-") // shorter than t.TempDir, for sun_path
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "crank.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	i := &instance{t: t, ended: make(chan struct{})}
	args := []string{"-name", "web", "-prefix", dir, "-http", strings.ReplaceAll(uri, "DIR", dir),
		"-bind", "http=127.0.0.1:0", "-bind", "127.0.0.1:0", "-settle", "100ms"}
	i.process = exec.Command(filepath.Join(bin, "crank"), append(args, flags...)...)
	i.process.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CRANK_") || strings.HasPrefix(v, "APP_") || strings.HasPrefix(v, "NOTIFY_")
	})
	i.process.Env = append(i.process.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	i.process.Stdout, i.process.Stderr = log, log
	if err := i.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = i.process.Wait()
		close(i.ended)
	}()
	t.Cleanup(func() {
		// TERM, so that it takes its app along; most have ended.
		_ = i.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-i.ended:
		case <-time.After(patience):
			t.Error("crank does not end")
			_ = i.process.Process.Kill()
			<-i.ended
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("crank's log:\n%s", text)
		}
		os.RemoveAll(dir)
	})
	if i.control, err = control.NewClient(filepath.Join(dir, "web.ctl"), ""); err != nil {
		t.Fatal(err)
	}
	i.find()
	return i
}

// find asks crank where everything is.
func (i *instance) find() {
	i.t.Helper()
	var info control.Info
	i.eventually("crank answers", func() (err error) {
		info, err = i.control.Info(context.Background())
		return err
	})
	i.app = address(info.Sockets[0].Bound)
	i.probes = info.HTTP
	i.http = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return i.dial() }}}
}

func address(uri string) string {
	_, where, _ := strings.Cut(uri, "://")
	return where
}

func (i *instance) dial() (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(i.probes, "unix") {
		network = "unix"
	}
	return net.Dial(network, address(i.probes))
}

// eventually waits until f succeeds.
func (i *instance) eventually(what string, f func() error) {
	i.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			i.t.Fatalf("not %s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// get returns the status and the body.
func (i *instance) get(path string) (int, string) {
	i.t.Helper()
	r, err := i.http.Get("http://crank" + path)
	if err != nil {
		i.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// want fails the test unless path answers this code.
func (i *instance) want(path string, code int) {
	i.t.Helper()
	if got, body := i.get(path); got != code {
		i.t.Errorf("%s: %d, want %d\n%s", path, got, code, body)
	}
}

// becomes waits for this code.
func (i *instance) becomes(path string, code int) {
	i.t.Helper()
	i.eventually(fmt.Sprint(path, " is ", code), func() error {
		if got, body := i.get(path); got != code {
			return fmt.Errorf("%d %s", got, body)
		}
		return nil
	})
}

// serves fails the test unless the app answers.
func (i *instance) serves() {
	i.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + i.app)
	if err != nil {
		i.t.Fatalf("the app does not serve: %v", err)
	}
	r.Body.Close()
}

func (i *instance) signal(sig syscall.Signal) {
	i.t.Helper()
	if err := i.process.Process.Signal(sig); err != nil {
		i.t.Fatal(err)
	}
}

// end stops crank and waits.
func (i *instance) end() {
	i.t.Helper()
	i.signal(syscall.SIGTERM)
	select {
	case <-i.ended:
	case <-time.After(patience):
		i.t.Fatal("crank does not end")
	}
}

// run asks for a swap and waits for its outcome.
func (i *instance) run(argv ...string) *control.Result {
	i.t.Helper()
	result, err := i.control.Run(context.Background(), control.RunRequest{SwapRequest: control.SwapRequest{Wait: true}, Command: argv}, nil)
	if err != nil && result == nil {
		i.t.Fatal(err)
	}
	return result
}

// scrape returns every sample by its name and labels: `swaps_total{trigger="hup",result="ok"}`, labels as the page sorts them.
func (i *instance) scrape() map[string]float64 {
	i.t.Helper()
	code, page := i.get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if code != 200 || err != nil {
		i.t.Fatalf("%d, %v\n%s", code, err, page)
	}
	samples := map[string]float64{}
	for name, family := range families {
		for _, m := range family.Metric {
			samples[strings.TrimPrefix(name, "crank_")+labels(m)] = value(m)
		}
	}
	return samples
}

func labels(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.Label {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if pairs == nil {
		return ""
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}

// value is that of a counter or a gauge, and the count of anything else.
func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return float64(m.GetSummary().GetSampleCount())
}

// wantSamples waits until all of these are there: an app's end is noticed in its own time.
func (i *instance) wantSamples(want map[string]float64) {
	i.t.Helper()
	i.eventually("as counted", func() error {
		got := i.scrape()
		for name, n := range want {
			if v, ok := got[name]; !ok || v != n {
				return fmt.Errorf("%s is %v (there: %v), want %v", name, v, ok, n)
			}
		}
		return nil
	})
}

// TestStartup: a pod is not ready before its app is, and started from then on, whatever comes.
func TestStartup(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "gate")
	i := start(t, "127.0.0.1:0", "-restart", "always", "--",
		"sh", "-c", "until [ -e "+gate+" ]; do sleep 0.05; done; exec app -serve none")
	i.want("/livez", 200)
	i.want("/startupz", 503)
	i.want("/readyz", 503)
	i.eventually("the reason is the starting generation", func() error {
		if _, body := i.get("/readyz"); body != "[-]current failed: generation 1 is starting\n[+]shutdown ok\nreadyz check failed\n" {
			return fmt.Errorf("%q", body)
		}
		return nil
	})
	i.wantSamples(map[string]float64{"ready": 0, "generation": 0, `processes{state="starting"}`: 1, `swaps_total{result="ok",trigger="start"}`: 0})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i.becomes("/readyz", 200)
	i.want("/startupz", 200)
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	ps, err := i.control.PS(context.Background(), nil, 0)
	if err != nil || len(ps) != 1 {
		t.Fatalf("%v %v", ps, err)
	}
	if err := syscall.Kill(ps[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	i.becomes("/readyz", 503)
	i.want("/startupz", 200)
	i.want("/livez", 200)
	i.wantSamples(map[string]float64{`process_exits_total{cause="signal",state="ready"}`: 1, "restarts_total": 1})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i.becomes("/readyz", 200)
	i.wantSamples(map[string]float64{`swaps_total{result="ok",trigger="restart"}`: 1, "generation": 2})
}

// TestSwaps: through swaps that succeed and fail no probe fails, and all of it is counted.
func TestSwaps(t *testing.T) {
	t.Parallel()
	i := start(t, "127.0.0.1:0", "--", "app", "-status", "hello")
	i.becomes("/readyz", 200)
	i.wantSamples(map[string]float64{
		"ready": 1, "generation": 1, "draining": 0, "last_swap_success": 1, `processes{state="ready"}`: 1,
		`notify_messages_total{key="READY"}`: 1, `notify_messages_total{key="STATUS"}`: 1,
		`swaps_total{result="ok",trigger="start"}`: 1, "start_duration_seconds": 1, "swap_duration_seconds": 1,
		`listener_queue_connections{listener="http"}`: 0, "log_dropped_total": 0, `control_requests_total{result="ok",verb="info"}`: 1,
	})

	// A kubelet asks all the time.
	asked, quit := 0, make(chan struct{})
	var kubelet sync.WaitGroup
	kubelet.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			for _, path := range []string{"/readyz", "/livez", "/startupz"} {
				r, err := i.http.Get("http://crank" + path)
				if err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				r.Body.Close()
				if asked++; r.StatusCode != 200 {
					t.Errorf("%s: %s", path, r.Status)
				}
			}
		}
	})
	for n := range 3 {
		if r := i.run("app", "-status", fmt.Sprint(n)); !r.OK {
			t.Errorf("%+v", r)
		}
		for _, broken := range [][]string{{"app", "-exit", "3"}, {"app", "-fail", "no database"}, {"no-such-program"}} {
			if r := i.run(broken...); r.OK {
				t.Errorf("%+v", r)
			}
		}
	}
	i.signal(syscall.SIGHUP)
	i.wantSamples(map[string]float64{`swaps_total{result="ok",trigger="hup"}`: 1})
	close(quit)
	kubelet.Wait()
	if asked < 30 {
		t.Errorf("only %d probes", asked)
	}
	i.end()
	t.Logf("%d probes", asked)
}

// TestCounters: what is counted adds up.
func TestCounters(t *testing.T) {
	t.Parallel()
	i := start(t, "unix://DIR/probes", "-stop", "5", "--", "app", "-ignore-term")
	i.becomes("/readyz", 200)
	i.run("app", "-exit", "3")
	i.run("app", "-fail", "no database")
	i.run("no-such-program")
	i.run("app")
	i.signal(syscall.SIGCONT)
	i.wantSamples(map[string]float64{
		`swaps_total{result="ok",trigger="run"}`: 1, `swaps_total{result="failed",trigger="run"}`: 3,
		`swap_failures_total{reason="exit"}`: 1, `swap_failures_total{reason="reported"}`: 1, `swap_failures_total{reason="exec"}`: 1,
		`swap_failures_total{reason="timeout"}`: 0, "start_duration_seconds": 2, "swap_duration_seconds": 2,
		`control_requests_total{result="failed",verb="run"}`: 3, `control_requests_total{result="ok",verb="run"}`: 1,
		`notify_messages_total{key="X_CRANK_FAILED"}`: 1, `notify_messages_total{key="READY"}`: 2,
		`signals_total{action="forwarded",signal="other"}`: 1,
		// Generation 1 does not listen to TERM.
		`kills_total{phase="drain"}`: 1, `process_exits_total{cause="killed",state="stopping"}`: 1,
		`process_exits_total{cause="exit",state="starting"}`: 1,
		"reaped_processes_total":                             3, "generation": 5, "draining": 0, "last_swap_success": 1,
	})
	for _, name := range []string{"process_open_fds", "go_goroutines"} {
		if n := i.scrape()[name]; n <= 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
	code, body := i.get("/version")
	var version struct{ Go string }
	if err := json.Unmarshal([]byte(body), &version); err != nil || code != 200 || !strings.HasPrefix(version.Go, "go1.") {
		t.Errorf("%v: %d %s", err, code, body)
	}
}

// TestDrainDelay: from TERM on not ready, so that no new clients are sent, but who comes is served.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	i := start(t, "127.0.0.1:0", "-drain-delay", "10m", "--", "app")
	i.becomes("/readyz", 200)
	i.signal(syscall.SIGTERM)
	i.becomes("/readyz", 503)
	i.serves()
	i.want("/readyz?exclude=shutdown", 200)
	i.want("/livez", 200)
	i.want("/healthz", 200)
	i.want("/startupz", 200)
	i.wantSamples(map[string]float64{"ready": 0, "generation": 1, `signals_total{action="stop",signal="TERM"}`: 1})
	i.end()
	if code := i.process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if c, err := i.dial(); err == nil {
		c.Close()
		t.Error("probes are still served")
	}
}

// TestPause: after docker unpause the first probe can be faster than crank.
func TestPause(t *testing.T) {
	t.Parallel()
	i := start(t, "127.0.0.1:0", "--", "app")
	i.becomes("/readyz", 200)
	i.signal(syscall.SIGSTOP)
	c, err := i.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /livez HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3500 * time.Millisecond) // it is the length of the pause that makes it one
	i.signal(syscall.SIGCONT)
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\nok\n") {
		t.Errorf("%v: %q", err, answer)
	}
	i.wantSamples(map[string]float64{"clock_gaps_total": 1, "ready": 1})
}

// TestBadClients: those who hold connections and send nothing keep neither probes nor swaps nor the end back.
func TestBadClients(t *testing.T) {
	t.Parallel()
	i := start(t, "127.0.0.1:0", "--", "app")
	i.becomes("/readyz", 200)
	for n := range 200 {
		c, err := i.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n%2 == 0 {
			_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: cra") // it may be closed already
		}
	}
	i.want("/livez", 200)
	i.want("/readyz", 200)
	i.serves()
	if r := i.run("app", "-status", "2"); !r.OK {
		t.Errorf("%+v", r)
	}
	i.serves()
	if fds := i.scrape()["process_open_fds"]; fds > 150 {
		t.Errorf("%v descriptors are open", fds)
	}
	i.end()
}

// TestNoDescriptors: the app gets neither the socket of -http nor a connection to it.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	i := start(t, "127.0.0.1:0", "--", "app")
	i.becomes("/readyz", 200)
	c, err := i.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := i.run("app", "-status", "2")
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.PID))
	if err != nil || len(links) == 0 {
		t.Fatal(links, err)
	}
	inodes := map[string]bool{}
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil {
			inodes[target] = true
		}
	}
	own, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", i.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	shared := 0
	for _, l := range own {
		if target, err := os.Readlink(l); err == nil && strings.HasPrefix(target, "socket:") && inodes[target] {
			shared++
		}
	}
	if shared != 2 {
		t.Errorf("%d sockets are shared with the app, want the 2 of -bind", shared)
	}
}

// TestCannotBind: an address that cannot be had is crank's own error, and names the flag.
func TestCannotBind(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for uri, want := range map[string]string{
		taken.Addr().String(): "crank: -http (CRANK_HTTP): cannot bind ",
		"udp://127.0.0.1:0":   "crank: -http (CRANK_HTTP): cannot serve HTTP on udp://127.0.0.1:0: want a TCP address",
		"nonsense:x":          "crank: -http (CRANK_HTTP): ",
	} {
		cmd := exec.Command(filepath.Join(bin, "crank"), "-prefix", t.TempDir(), "-http", uri, "--", "true")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 125 || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %v\n%s", uri, err, out)
		}
	}
}
