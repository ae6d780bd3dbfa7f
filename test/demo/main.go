// Command demo shows what crank is for: a server is replaced again and again, also by broken
// versions of it, while clients that never retry use it all the time.
//
// It needs crank, crankctl and test/app (as app) in the directory -bin, uses loopback alone, takes
// less than a minute and exits 1 if a request was lost or a swap went otherwise than it should.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/demo/hammer"
)

// The whole demo takes this long at most, and is quiet for so long between two swaps.
const (
	limit = 55 * time.Second
	pause = 250 * time.Millisecond
)

// broken are versions that must not get to serve: the flags of crankctl run, and of the app. None
// dies while it settles: that costs the connections that it has accepted.
var broken = []struct {
	name     string
	run, app []string
}{
	{name: "exits 3", app: []string{"-exit", "3", "-stderr", "config: no such key: colour"}},
	{name: "never ready", run: []string{"-start", "300ms"}, app: []string{"-never-ready"}},
	{name: "says it failed", app: []string{"-fail", "cannot reach the database"}},
}

// brokenEvery is the number of good swaps before each broken one.
const brokenEvery = 3

func main() { os.Exit(run()) }

func run() int {
	bin := flag.String("bin", "bin", "the `directory` of crank, crankctl and app")
	swaps := flag.Int("swaps", 20, "the `number` of good swaps")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	d := &demo{}
	err := d.start(ctx, *bin)
	if err == nil {
		err = d.drive(ctx, *swaps)
	}
	if stopErr := d.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		d.printLog()
	}
	d.close()
	if err != nil || d.lost > 0 || d.surprises > 0 {
		return 1
	}
	return 0
}

// demo is one crank with an app behind it.
type demo struct {
	bin, dir                   string
	crank                      *os.Process
	address                    string
	load                       *hammer.Run
	generation, pid            int // that serves now
	good, bad, surprises, lost int
	slowest                    time.Duration // swap
}

func (d *demo) start(ctx context.Context, bin string) (err error) {
	if d.bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "crank-demo-"); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "crank.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// Both versions accept while the new one settles: the demo shows that too, but not for long.
	args := append([]string{"-name", "demo", "-prefix", d.dir, "-bind", "web=127.0.0.1:0",
		"-settle", "100ms", "-start", "10s", "-stop", "10s", "--"}, d.app("v1")...)
	if d.crank, err = startProcess(filepath.Join(d.bin, "crank"), args, log, log); err != nil {
		return err
	}
	return d.find(ctx)
}

// find waits for the first generation and asks where it serves.
func (d *demo) find(ctx context.Context) error {
	for {
		code, _, message, err := d.crankctl(ctx, "wait", "-ready")
		if err != nil {
			return err
		}
		if code == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("crank does not become ready: %s", message)
		case <-time.After(50 * time.Millisecond): // its control socket is not there yet
		}
	}
	var info control.Info
	if err := d.ask(ctx, &info, "info", "-o", "json"); err != nil {
		return err
	}
	if len(info.Sockets) != 1 || info.Current == nil {
		return fmt.Errorf("crankctl info shows %d sockets, current: %v", len(info.Sockets), info.Current)
	}
	d.address = withoutScheme(info.Sockets[0].Bound)
	d.generation, d.pid = info.Current.Generation, info.Current.PID
	return nil
}

// drive swaps under load.
func (d *demo) drive(ctx context.Context, swaps int) error {
	fmt.Printf("crank pid %d holds %s; 4 clients keep their connection, 4 make one per request, none retries\n\n",
		d.crank.Pid, d.address)
	d.load = hammer.Start(hammer.Load{
		Network: "tcp", Address: d.address, KeepAlive: 4, Short: 4, Pause: 2 * time.Millisecond,
	})
	began := time.Now()
	version, tried := 1, 0
	for n := range swaps {
		next := 3 - version
		if err := d.swap(ctx, fmt.Sprintf("v%d -> v%d", version, next), d.app(fmt.Sprint("v", next))); err != nil {
			return err
		}
		version = next
		if (n+1)%brokenEvery == 0 {
			b := broken[tried%len(broken)]
			tried++
			if err := d.swapBroken(ctx, b.name, b.run, append(d.app("broken"), b.app...)); err != nil {
				return err
			}
		}
	}
	d.table(d.load.Stop(), swaps, tried, time.Since(began))
	d.load = nil
	return nil
}

func (d *demo) app(body string) []string {
	return []string{filepath.Join(d.bin, "app"), "-body", body, "-drain", "8s"}
}

func (d *demo) swap(ctx context.Context, name string, command []string) error {
	result, err := d.run(ctx, nil, command)
	if err != nil {
		return err
	}
	took := time.Duration(result.Seconds * float64(time.Second))
	if !result.OK {
		d.surprises++
		d.line("FAIL", name, "%s", result.Reason)
		return nil
	}
	d.good++
	d.slowest = max(d.slowest, took)
	d.line("swap", name, "generation %d -> %d, pid %d -> %d in %v",
		d.generation, result.Current, d.pid, result.CurrentPID, took.Round(time.Millisecond))
	d.generation, d.pid = result.Current, result.CurrentPID
	return nil
}

// swapBroken must fail, and leave the one that serves alone.
func (d *demo) swapBroken(ctx context.Context, name string, flags, command []string) error {
	result, err := d.run(ctx, flags, command)
	if err != nil {
		return err
	}
	if result.OK || result.Current != d.generation || result.CurrentPID != d.pid {
		d.surprises++
		d.line("FAIL", name, "generation %d (pid %d) serves, not %d (pid %d)", result.Current, result.CurrentPID, d.generation, d.pid)
		d.generation, d.pid = result.Current, result.CurrentPID
		return nil
	}
	d.bad++
	d.line("kept", name, "generation %d: %s; generation %d (pid %d) still serving",
		result.Generation, result.Reason, d.generation, d.pid)
	return nil
}

func (d *demo) run(ctx context.Context, flags, command []string) (result control.Result, err error) {
	args := append([]string{"run", "-wait", "-o", "json"}, flags...)
	err = d.ask(ctx, &result, append(append(args, "--"), command...)...)
	if err == nil {
		time.Sleep(pause) // for the reader, and for traffic that nothing disturbs
	}
	return result, err
}

func (d *demo) line(what, name, format string, args ...any) {
	report := d.load.Report()
	fmt.Printf("%s  %-14s  %6d requests, %d lost  %s\n", what, name, report.Requests, report.Lost, fmt.Sprintf(format, args...))
}

func (d *demo) table(report hammer.Report, swaps, tried int, took time.Duration) {
	d.lost = report.Lost
	answers := fmt.Sprintf("v1 %d, v2 %d, broken %d", report.Bodies["v1"], report.Bodies["v2"], report.Bodies["broken"])
	rows := []struct{ name, value string }{
		{"requests", fmt.Sprintf("%d over %d connections in %v", report.Requests, report.Connections, took.Round(time.Second/10))},
		{"lost", strconv.Itoa(report.Lost)},
		{"answered by", answers},
		{"swaps", fmt.Sprintf("%d of %d", d.good, swaps)},
		{"broken versions kept out", fmt.Sprintf("%d of %d, the serving process unchanged", d.bad, tried)},
		{"slowest swap", d.slowest.Round(time.Millisecond).String()},
		{"longest stall of a client", report.Longest.Round(time.Millisecond / 10).String()},
	}
	fmt.Println()
	for _, row := range rows {
		fmt.Printf("  %-26s %s\n", row.name, row.value)
	}
	for _, text := range report.Errors {
		fmt.Println("  lost:", text)
	}
}

// stop ends the clients and crank, which must end with the code of the app: 0.
func (d *demo) stop() error {
	if d.load != nil {
		d.load.Stop()
	}
	if d.crank == nil {
		return nil
	}
	d.crank.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(15*time.Second, func() { d.crank.Kill() })
	defer kill.Stop()
	state, err := d.crank.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("crank ended with %v", state)
	}
	return err
}

func (d *demo) printLog() {
	if log, err := os.ReadFile(filepath.Join(d.dir, "crank.log")); err == nil {
		os.Stderr.Write(log)
	}
}

func (d *demo) close() {
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}
