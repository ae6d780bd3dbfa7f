package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/instance"
)

// telling is an app that reports through a FIFO which signals it gets. On USR1 it writes to its stdout and stderr. It exits with 7.
const telling = `exec 4>"$0"; for s in XFSZ XCPU TTOU VTALRM USR2; do trap "echo $s >&4" $s; done
trap 'echo text; echo text >&2; echo wrote >&4' USR1; trap 'kill $!; exit 7' TERM
sleep 1000 & echo up >&4; while :; do wait; done`

// limitCell is a cell whose app is telling.
type limitCell struct {
	*cell
	told chan string
}

func newLimitCell(t *testing.T) *limitCell {
	t.Helper()
	c := &limitCell{newCell(t, &fault{}, ready), make(chan string, 1000)}
	fifo := filepath.Join(c.dir, "fifo")
	c.must(syscall.Mkfifo(fifo, 0o600))
	file, err := os.OpenFile(fifo, os.O_RDWR, 0)
	c.must(err)
	t.Cleanup(func() { file.Close() })
	go func() {
		for s := bufio.NewScanner(file); s.Scan(); {
			c.told <- s.Text()
		}
	}()
	c.app = []string{"sh", "-c", telling, fifo}
	c.flags = append(c.flags, "-ready", "none", "-settle", "0", "-termination-log", filepath.Join(c.dir, "end"))
	return c
}

// limited starts crank with a shell's ulimit, and waits until it can receive every signal.
func (c *limitCell) limited(ulimit string) {
	c.Helper()
	c.wrap = []string{"sh", "-c", "ulimit " + ulimit + ` && exec "$@"`, "sh"}
	c.start()
	c.tells("up")
	c.info() // answered once all signals are received
}

// tells waits until the app reports a line, with no other before.
func (c *limitCell) tells(want string) {
	c.Helper()
	select {
	case got := <-c.told:
		if got != want {
			c.Fatalf("the app reported %q, want %q", got, want)
		}
	case <-c.ended:
		c.Fatalf("crank ended with %d", c.exitCode())
	case <-time.After(c.patience):
		c.Fatalf("the app did not report %q", want)
	}
}

// undisturbed checks that the app has received only the signals sent to it, and that it still serves.
func (c *limitCell) undisturbed(sent syscall.Signal, name string) {
	c.Helper()
	c.signal(syscall.SIGUSR2)
	c.tells("USR2")
	c.signal(sent) // sent by another process
	c.tells(name)
	c.signal(syscall.SIGTERM)
	if got := c.observeEnd(); got != endsWith(7) {
		c.Errorf("at the end it %s, want %s", got, endsWith(7))
	}
}

// dropped returns how many lines of its log crank could not write.
func (c *limitCell) dropped() (n int, err error) {
	_, address, _ := strings.Cut(c.info().HTTP, "://")
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^crank_log_dropped_total (\d+)$`).FindSubmatch(body)
	if found == nil {
		return 0, errors.New("no crank_log_dropped_total")
	}
	return strconv.Atoi(string(found[1]))
}

// awaitDropped calls do, and waits until another line has been dropped.
func (c *limitCell) awaitDropped(do func()) {
	c.Helper()
	before, err := c.dropped()
	c.must(err)
	do()
	c.eventually("a line is dropped", func() error {
		if n, err := c.dropped(); err != nil || n <= before {
			return fmt.Errorf("%d, before %d: %w", n, before, err)
		}
		return nil
	})
}

// sendWithCrankctl makes crank write to its log.
func (c *limitCell) sendWithCrankctl() {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	_, err := c.client.Kill(ctx, control.KillRequest{States: []string{"ready"}, Signal: "USR2"})
	c.must(err)
	c.tells("USR2")
}

// awaitLogged waits for a line in crank's log.
func (c *limitCell) awaitLogged(text string) {
	c.Helper()
	c.eventually("crank has logged "+text, func() error {
		log, err := os.ReadFile(filepath.Join(c.dir, "log"))
		if err == nil && !strings.Contains(string(log), text) {
			err = errors.New("not logged")
		}
		return err
	})
}

// TestFileSizeLimit: crank cannot write to its files (ulimit -f). The kernel then sends XFSZ to crank, which must not reach the app.
func TestFileSizeLimit(t *testing.T) {
	for _, bound := range []bool{true, false} {
		for _, output := range []string{"auto", "tag"} {
			t.Run(fmt.Sprintf("log/bound=%v/%s", bound, output), func(t *testing.T) {
				t.Parallel()
				c := newLimitCell(t)
				c.unbound = !bound
				c.flags = append(c.flags, "-output", output)
				c.stdout = c.copied("stdout") // the app's own writes to it do not fail
				c.limited("-f 0")
				for range 3 {
					c.awaitDropped(c.sendWithCrankctl)
				}
				if bound && output == "auto" {
					c.awaitDropped(func() { // the warning cannot be written either
						c.signal(syscall.SIGUSR1)
						c.tells("wrote")
					})
				}
				c.undisturbed(syscall.SIGXFSZ, "XFSZ")
			})
		}
		t.Run(fmt.Sprintf("stdout/bound=%v", bound), func(t *testing.T) {
			t.Parallel()
			c := newLimitCell(t)
			c.unbound = !bound
			c.flags = append(c.flags, "-output", "tag")
			c.stderr = c.copied("log")
			c.limited("-f 0")
			for range 3 {
				c.signal(syscall.SIGUSR1)
				c.tells("wrote")
			}
			c.awaitLogged("app output lost")
			c.undisturbed(syscall.SIGXFSZ, "XFSZ")
			log, err := os.ReadFile(filepath.Join(c.dir, "log"))
			c.must(err)
			if n := strings.Count(string(log), "app output lost"); n != 1 {
				t.Errorf("%d warnings, want one", n)
			}
		})
	}
	t.Run("state file", func(t *testing.T) {
		t.Parallel()
		c := newLimitCell(t)
		c.stderr = c.copied("log")
		c.limited("-f 0")
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		result, err := c.client.Run(ctx, control.RunRequest{Command: slices.Concat(c.app, []string{"more"})}, nil)
		c.must(err)
		t.Logf("saved: %s", result.Saved)
		c.tells("up")
		c.awaitLogged("command not saved")
		c.undisturbed(syscall.SIGXFSZ, "XFSZ")
	})
}

// copied returns a pipe that is copied into a file of the cell, by a process without limits.
func (c *limitCell) copied(name string) *os.File {
	c.Helper()
	r, w, err := os.Pipe()
	c.must(err)
	file, err := os.Create(filepath.Join(c.dir, name))
	c.must(err)
	var copying sync.WaitGroup
	copying.Go(func() {
		io.Copy(file, r)
		file.Close()
		r.Close()
	})
	c.Cleanup(func() {
		w.Close()
		c.end()
		copying.Wait()
	})
	return w
}

// TestBackgroundWrites: crank in the background writes to a terminal with "stty tostop", for which its whole process group gets TTOU.
func TestBackgroundWrites(t *testing.T) {
	for _, shell := range []string{"bash", "dash", "zsh"} {
		for _, output := range []string{"auto", "tag"} {
			t.Run(shell+"/"+output, func(t *testing.T) {
				c := newLimitCell(t)
				s := instance.Shell(t, shell, bin, c.dir)
				s.Do("stty tostop")
				s.Press(fmt.Sprintf("crank -name limits -ready none -bind 127.0.0.1:0 -output %s -- sh -c %s %s &\n", output, quoted(telling), c.app[3]))
				c.ended = make(chan struct{})
				c.tells("up")
				s.Await("generation ready")
				for range 3 {
					if output == "tag" { // without it the app writes to the terminal itself, and gets its own TTOU
						s.Press("crankctl kill -signal USR1 -ready\n")
						c.tells("wrote")
						s.Await("err | text")
					}
					s.Press("crankctl kill -signal USR2 -ready\n")
					c.tells("USR2")
					s.Await("signal on request")
				}
				s.Press("crankctl kill -signal USR2 -ready\n")
				c.tells("USR2")
				s.Press("kill $!; wait $!; echo \"code=<$?>\"\n")
				s.Await("\ncode=<7>")
				s.Exit()
			})
		}
	}
}

func quoted(script string) string { return "'" + strings.ReplaceAll(script, "'", `'\''`) + "'" }

// TestInstallAtTheLimit: files that cannot be written are an error; no signal kills crank.
func TestInstallAtTheLimit(t *testing.T) {
	out, err := exec.Command("sh", "-c", `ulimit -f 1 && exec "$@"`, "sh", filepath.Join(bin, "crank"), "-install", t.TempDir()).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 125 || !strings.Contains(string(out), "file too large") {
		t.Errorf("%v: %s", err, out)
	}
}
