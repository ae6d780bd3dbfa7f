// Command runner runs the tests of several modules and shows their progress: that go test compiles, a line for each package that has
// ended, and what is running when there was no line for a while. At the end it lists what was not tested and what failed. It tests all
// modules, even after a failure.
//
//	runner [-log FILE] [-every 30s] [-modules "DIR ..."] [-first "FLAGS"] -- [go test flags and packages]
//
// The exit code is 0, 1 if something failed, or 128 plus the number of the signal that ended it. It leaves nothing behind: the tests
// have their own directory as TMPDIR, and the processes that they started are killed at the end.
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
	"github.com/crankctl/crank/test/root"
)

// patience is how long an interrupted go test may take to end on a busy machine.
const patience = time.Minute

func main() { os.Exit(run()) }

func run() int {
	modules := flag.String("modules", "", "`directories` of more modules to test, separated by spaces")
	first := flag.String("first", "", "`flags` of go test for the first module only")
	every := flag.Duration("every", 30*time.Second, "show what is running after this `time` without a line")
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
	if !root.Full() {
		p.missing("NOT TESTED: other users, full disks: only root can", event{})
	}
	return p.summary()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "runner:", err)
	return 1
}

// test runs go test in the directory of a module. It returns the signal that interrupted it, or 0.
func test(p *progress, module string, args []string, every time.Duration, signals <-chan os.Signal) (by syscall.Signal) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = module, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's signals reach only this program, which forwards them
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
			if by != 0 { // the second signal
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
