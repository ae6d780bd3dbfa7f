// Command runner runs the tests of several modules and shows how far they are: that it compiles, a line for each package that has
// ended, and what runs where no line has come for a while. At its end it lists what was not tested, and what has failed. All modules
// are tested, also after a failure.
//
//	runner [-log FILE] [-every 30s] [-modules "DIR ..."] [-first "FLAGS"] -- [go test flags and packages]
//
// The exit code is 0, 1 where something has failed, or 128 and the number of the signal that has ended it. It leaves nothing: the tests
// have a directory of their own as TMPDIR, and what they have started is killed at the end.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/test/guard"
)

// patience is for go test, to end once it was interrupted, on a busy machine.
const patience = time.Minute

func main() { os.Exit(run()) }

func run() int {
	modules := flag.String("modules", "", "`directories` of more modules to test, separated by spaces")
	first := flag.String("first", "", "`flags` of go test for the first module only")
	every := flag.Duration("every", 30*time.Second, "say what runs after this `time` without a line")
	path := flag.String("log", "", "write the result of each package, and the summary, to this `file` as well")
	flag.Parse()
	dir, err := guard.Adopt()
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	log := io.Discard
	if *path != "" {
		file, err := os.Create(*path)
		if err != nil {
			return fail(err)
		}
		defer file.Close()
		log = file
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	p := newProgress(os.Stdout, log)
	for n, module := range append([]string{"."}, strings.Fields(*modules)...) {
		args := []string{"test", "-json"}
		if n == 0 {
			args = append(args, strings.Fields(*first)...)
		}
		p.begin(module)
		if sig := test(p, module, append(args, flag.Args()...), *every, signals); sig != 0 {
			p.interrupted = sig
			break
		}
	}
	p.left = guard.KillRest(0)
	if os.Geteuid() != 0 {
		p.missing("NOT TESTED without root: other users, full disks", event{})
	}
	return p.summary()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "runner:", err)
	return 1
}

// test runs go in the directory of a module. It returns the signal that has ended it, or 0.
func test(p *progress, module string, args []string, every time.Duration, signals <-chan os.Signal) (by syscall.Signal) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = module, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal sends comes to this program alone, which passes it on
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.broken(err)
		return 0
	}
	lines := readLines(out)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var late <-chan time.Time
	for lines != nil {
		select {
		case line, ok := <-lines:
			if !ok {
				lines = nil
				continue
			}
			p.line(line)
		case now := <-tick.C:
			p.tick(now, every)
		case sig := <-signals:
			if by != 0 { // once more
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				continue
			}
			by, late = sig.(syscall.Signal), time.After(patience)
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		case <-late:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	if err := cmd.Wait(); err != nil && by == 0 {
		p.broken(err)
	}
	return by
}
