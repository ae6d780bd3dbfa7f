package attack_test

import (
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
	"github.com/crankctl/crank/test/disguise"
	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/root"
)

// withOrphans is an instance whose first generation started orphans that show an environment other than their own.
type withOrphans struct {
	*instance
	process *exec.Cmd
	started []int // the app and the orphans
}

// asEach runs a test as root and as an ordinary user. Without root, it runs it as the current user only.
func asEach(t *testing.T, test func(*testing.T, *syscall.Credential)) {
	if !root.Full() {
		t.Run("user", func(t *testing.T) { test(t, nil) })
		return
	}
	const user = 46999
	t.Run("root", func(t *testing.T) { test(t, nil) })
	t.Run("user", func(t *testing.T) { test(t, &syscall.Credential{Uid: user, Gid: user}) })
}

// startWithOrphans returns once crank has adopted this number of orphans, each in its own session.
func startWithOrphans(t *testing.T, user *syscall.Credential, number int, what, says string) *withOrphans {
	t.Helper()
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if user != nil {
		if err := os.Chown(dir, int(user.Uid), int(user.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	gate := filepath.Join(dir, "gate")
	w := &withOrphans{instance: &instance{t: t, ctl: filepath.Join(dir, "web.ctl")}}
	// Limited to a gigabyte, so that a crank without bounds cannot exhaust the machine's memory.
	w.process = exec.Command("sh", "-c", `ulimit -d 1048576 && exec "$@"`, "sh", filepath.Join(bin, "crank"), "-name", "web", "-prefix", dir, "-bind", "127.0.0.1:0", "-http", "127.0.0.1:0",
		"-stop", "3s", "-settle", "50ms", "--", filepath.Join(bin, "app"), "-order", "disguise", "-order-when", gate, "-orphan-life", "5m",
		"-disguise", what, "-disguised", fmt.Sprint(number), "-disguised-says", says)
	w.process.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	if err := w.process.Start(); err != nil {
		t.Fatal(err)
	}
	w.pid = w.process.Process.Pid
	t.Cleanup(func() {
		if !t.Failed() {
			return // crank and all its processes have ended
		}
		_ = w.process.Process.Kill()
		_ = w.process.Wait()
		for _, pid := range w.started {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(name), "-disguise") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	if w.client, err = control.NewClient(w.ctl, ""); err != nil {
		t.Fatal(err)
	}
	w.eventually("crank is ready", func() error {
		info, err := w.client.Info(t.Context())
		if err == nil && info.Current == nil {
			err = errors.New("no current generation")
		}
		_, w.http, _ = strings.Cut(info.HTTP, "://")
		return err
	})
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.eventually("the orphans exist", func() error {
		w.started = processes.Children(w.pid)
		if n := len(w.orphans()); n != number {
			return fmt.Errorf("%d of %d", n, number)
		}
		return nil
	})
	return w
}

// orphans returns the orphans that crank has adopted.
func (w *withOrphans) orphans() (found []int) {
	for _, pid := range processes.Children(w.pid) {
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(name), "app-orphan") {
			found = append(found, pid)
		}
	}
	return found
}

// swap replaces the generation that started the orphans, and waits until it is gone.
func (w *withOrphans) swap() {
	w.t.Helper()
	result, err := w.client.Run(w.t.Context(), control.RunRequest{Command: []string{filepath.Join(bin, "app")}}, nil)
	if err != nil {
		w.t.Fatalf("swap: %v, %+v", err, result)
	}
	w.eventually("the old generation is gone", func() error {
		all, err := w.client.PS(w.t.Context(), nil, 0)
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d generations", len(all))
		}
		return err
	})
}

// end sends TERM to crank, and returns how long it took to exit.
func (w *withOrphans) end() time.Duration {
	w.t.Helper()
	begin := time.Now()
	if err := w.process.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	if err := w.process.Wait(); err != nil {
		w.t.Errorf("crank: %v", err)
	}
	return time.Since(begin)
}

// gaps returns how often crank thinks it was suspended.
func (w *withOrphans) gaps() string {
	w.t.Helper()
	response, err := http.Get("http://" + w.http + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	_, after, ok := strings.Cut(string(body), "\ncrank_clock_gaps_total ")
	if err != nil || !ok {
		w.t.Fatalf("%v: %s", err, body)
	}
	n, _, _ := strings.Cut(after, "\n")
	return n
}

// peak returns crank's peak memory so far, in KiB.
func (w *withOrphans) peak() (kib int) {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &kib)
	}
	return kib
}

// Three orphans have an environment of 64 GiB, and each sends ten messages a second. crank finds out that they belong to no generation
// with as little memory as for an environment of ordinary size, and swaps and exits as usual.
func TestOrphansWithHugeEnvironments(t *testing.T) {
	const mayHave = 64 << 10 // KiB
	asEach(t, func(t *testing.T, user *syscall.Credential) {
		w := startWithOrphans(t, user, 3, disguise.Huge, "STATUS=from an orphan")
		w.eventually("an orphan's message was handled", func() error {
			all, err := w.client.PS(context.Background(), nil, 0)
			if err == nil && (len(all) != 1 || all[0].Status != "from an orphan") {
				err = fmt.Errorf("%+v", all)
			}
			return err
		})
		w.swap()
		if kib, gaps := w.peak(), w.gaps(); kib > mayHave || gaps != "0" {
			t.Errorf("%d KiB of memory, %s gaps", kib, gaps)
		}
		w.end()
	})
}

// Three hundred orphans have an environment and show none. crank keeps checking them for a moment, all together, and its loop does not
// wait for that: the old generation is gone as soon as with orphans that hide nothing, crank does not think it was suspended,
// and TERM ends it.
func TestOrphansWithoutEnvironments(t *testing.T) {
	const number, slower = 300, 3 * time.Second // at 10 ms for each orphan and check it would be at least six seconds
	asEach(t, func(t *testing.T, user *syscall.Credential) {
		took := func(what string) (swap, end time.Duration) {
			w := startWithOrphans(t, user, number, what, "")
			begin := time.Now()
			w.swap()
			swap = time.Since(begin)
			if gaps := w.gaps(); gaps != "0" {
				t.Errorf("%q: %s gaps", what, gaps)
			}
			return swap, w.end()
		}
		swap, end := took("")
		hiddenSwap, hiddenEnd := took(disguise.Empty)
		t.Logf("swap %v, end %v; with hidden environments %v, %v", swap, end, hiddenSwap, hiddenEnd)
		if hiddenSwap > swap+slower || hiddenEnd > end+slower {
			t.Errorf("want at most %v more", slower)
		}
	})
}
