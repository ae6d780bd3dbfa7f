// Command bench measures crank beside its peers, in one run, and prints ratios.
//
// Whatever is compared is measured in turns: what else the machine does falls on all alike. A figure by itself says
// nothing about another machine, a ratio does. It sends traffic to loopback alone and needs the peers from Debian; the ones that
// are not installed are named, and so is a benchmark during which others used the CPUs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/programs"
)

// benchmark measures a few things that belong together.
type benchmark struct {
	name    string // for -only, and that of its file
	run     func(context.Context, *bench) error
	peers   []string
	targets []target
}

// target is what a figure is to reach. All other rows of the table are there to be looked at.
type target struct {
	key, what string
	limit
}

// docs/performance.md says what each row means.
var benchmarks = []benchmark{
	{"start", start, []string{"tini", "dumb-init", "catatonit"}, []target{
		{"start", "`crank -- true`, whole process", atMost(2.8, "x").aim(2)},
		{"start with a socket", "with a socket and LISTEN_PID", atMost(4, "x").aim(2.5)},
	}},
	{"memory", memory, []string{"tini", "dumb-init", "catatonit", "s6", "runit", "supervisor", "Server::Starter"}, []target{
		{"memory", "idle memory (RSS), metrics on", atMost(10, "MiB")},
		{"growth", "RSS after swaps, less that after a tenth of them", lessThan(1, "MiB")},
	}},
	{"signal", signals, []string{"tini", "dumb-init", "catatonit"}, []target{
		{"signal", "a signal's way to the app, p50", atMost(2, "x")},
	}},
	{"reap", reap, []string{"tini", "dumb-init", "catatonit"}, []target{
		{"reap", "orphans made and reaped a second", atLeast(0.9, "x")},
	}},
	{"swap", swaps, nil, []target{
		{"swap", "a swap, less the app's own start, p50", atMost(2.5, "x")},
		{"swap p99", "the same, p99 beside p50", atMost(5, "x")},
	}},
	{"latency", latency, []string{"nginx", "HAProxy", "gunicorn", "Server::Starter", "Starlet", "systemd-socket-activate", "supervisor"}, []target{
		{"latency", "p99 of requests during swaps, beside without", atMost(1.25, "x")},
		{"latency nginx", "that ratio beside the peer's", atMost(1, "x")},
		{"failed", "failed requests during swaps", atMost(0, "")},
	}},
	{"logs", logs, []string{"s6-log", "svlogd"}, []target{
		{"logs s6-log", "tag mode, lines a second", atLeast(1, "x")},
		{"logs svlogd", "tag mode, lines a second", atLeast(1, "x")},
	}},
	{"probe", probe, nil, []target{
		{"probe", "`crankctl ready`, whole process", atMost(2.2, "x").aim(1.6)},
	}},
}

// bench is one run of the program.
type bench struct {
	bin, dir string // the programs; a directory on tmpfs
	crank    string // another crank than the one in bin
	quick    bool
	targets  map[string]target // by key
	rows     []row
	progress io.Writer
}

func main() {
	if code, done := isolate(); done {
		os.Exit(code)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	only := fs.String("only", "", "comma-separated `names` of the benchmarks to run: "+strings.Join(names(), ", "))
	quick := fs.Bool("quick", false, "few runs of everything: to see that it works")
	other := fs.String("crank", "", "measure this `program` in the place of the crank that is built")
	document := fs.String("markdown", "", "write the table into this `document` too")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	chosen, err := choose(*only)
	if err == nil && *document != "" && (*quick || *only != "" || *other != "") {
		err = errors.New("-markdown: a document gets the whole table: without -only, -quick and -crank")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{quick: *quick, crank: *other, progress: stderr, targets: map[string]target{}}
	if err := b.measure(ctx, chosen, *document, stdout); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func names() (all []string) {
	for _, b := range benchmarks {
		all = append(all, b.name)
	}
	return all
}

func choose(only string) ([]benchmark, error) {
	if only == "" {
		return benchmarks, nil
	}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return nil, fmt.Errorf("-only: there is no benchmark %q, but %s", name, strings.Join(names(), ", "))
		}
	}
	var chosen []benchmark
	for _, b := range benchmarks {
		if slices.Contains(wanted, b.name) {
			chosen = append(chosen, b)
		}
	}
	return chosen, nil
}

// measure runs the benchmarks and prints the table. One that fails does not keep the others from being run.
func (b *bench) measure(ctx context.Context, chosen []benchmark, document string, stdout io.Writer) error {
	dir, err := workspace()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err := os.MkdirTemp("", "crank-bench-") // as what a container's image is on
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	if err := install(bin); err != nil {
		return err
	}
	b.bin, b.dir = bin, dir
	head := []string{machine()}
	b.say("%s", head[0])
	if versions := sayPeers(b.progress, chosen); len(versions) > 0 {
		head = append(head, "beside "+strings.Join(versions, ", "))
	}
	var failed []string
	for _, one := range chosen {
		ok, disturbance := b.measureOne(ctx, one)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if !ok {
			failed = append(failed, one.name)
		}
		if disturbance != "" {
			head = append(head, disturbance)
		}
	}
	fmt.Fprintf(stdout, "\n%s\n\n", strings.Join(head, "\n"))
	printTable(stdout, b.rows)
	if len(failed) > 0 {
		return fmt.Errorf("%s failed: see above", strings.Join(failed, ", "))
	}
	if document != "" {
		return markdown.Splice(document, tableBegin, tableEnd, strings.Join(head, "  \n")+"\n\n"+inMarkdown(b.rows))
	}
	return nil
}

// install builds the programs and copies them into bin, as the peers were copied out of their packages, and an image's files are out
// of its layers. The linker writes a program here and there; the kernel then has it in single pages, and to
// start it takes a sixth longer, until it was read from the disk again.
func install(bin string) error {
	built, err := os.MkdirTemp("", "crank-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(built)
	if err := programs.Build(built, "test/pid1/inside", "test/bench/hello", "test/bench/floor", "test/bench/actor", "test/bench/starter"); err != nil {
		return err
	}
	return os.CopyFS(bin, os.DirFS(built))
}

// measureOne says how it goes, and what has disturbed it.
func (b *bench) measureOne(ctx context.Context, one benchmark) (ok bool, disturbance string) {
	for _, t := range one.targets {
		b.targets[t.key] = t
	}
	b.say("%s ...", one.name)
	w := startWatch()
	err := one.run(ctx, b)
	if err != nil && ctx.Err() == nil {
		b.say("FAILED: %s: %v", one.name, err)
	}
	others, stolen := w.others()
	b.say("%s took %v", one.name, time.Since(w.began).Round(time.Second))
	if others > disturbed || stolen > disturbed {
		disturbance = fmt.Sprintf("DISTURBED: during %s others used %.0f %% of the CPUs, and the hypervisor took %.0f %%", one.name, 100*others, 100*stolen)
		b.say("%s", disturbance)
	}
	return err == nil, disturbance
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// number is how often something is done.
func (b *bench) number(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// program returns the path of one that was built.
func (b *bench) program(name string) string {
	if name == "crank" && b.crank != "" {
		return b.crank
	}
	return filepath.Join(b.bin, name)
}

// reach adds the row of a target, and returns what it is called.
func (b *bench) reach(key string, r row) (what string) {
	t, ok := b.targets[key]
	if !ok {
		panic("the tables of this program are wrong: there is no target " + key)
	}
	r.what, r.target = t.what, t.limit
	b.rows = append(b.rows, r)
	return r.what
}

// beside adds a row that no target is about.
func (b *bench) beside(what string, r row) {
	r.what = what
	b.rows = append(b.rows, r)
}

// deadline is for what should happen at once.
func deadline() time.Time { return time.Now().Add(patience) }
