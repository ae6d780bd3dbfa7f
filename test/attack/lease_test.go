package attack_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

// leased writes a script whose interpreter is under a write lease (fcntl(2), F_SETLEASE): its exec hangs until the process is killed or
// /proc/sys/fs/lease-break-time has passed. The holder of the lease does not notice that the file is wanted: Go ignores SIGIO.
func leased(t *testing.T) (script string) {
	t.Helper()
	dir := t.TempDir()
	interpreter := filepath.Join(dir, "sh")
	script = filepath.Join(dir, "script")
	shell, err := os.ReadFile("/bin/sh")
	if err = errors.Join(err, os.WriteFile(interpreter, shell, 0o755), os.WriteFile(script, []byte("#!"+interpreter+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(interpreter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), syscall.F_SETLEASE, syscall.F_WRLCK); errno != 0 {
		t.Fatal(errno)
	}
	return script
}

// breakTime is how long a lease can block an exec.
func breakTime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/lease-break-time")
	seconds, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err = errors.Join(err, convErr); err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds) * time.Second
}

// hang requests a swap to a program whose exec hangs, and returns once it hangs. The answer is why the swap failed.
func (i *instance) hang() (answer <-chan string) {
	i.t.Helper()
	done := make(chan string, 1)
	script := leased(i.t)
	go func() {
		result, err := i.client.Run(context.Background(), control.RunRequest{Command: []string{script}}, nil)
		if result == nil {
			result = &control.Result{Reason: fmt.Sprint(err)}
		}
		done <- result.Reason
	}()
	i.hangs()
	return done
}

// hangs waits until the exec of the starting generation hangs.
func (i *instance) hangs() {
	i.t.Helper()
	i.eventually("the exec hangs", func() error {
		found, err := i.client.PS(i.t.Context(), []string{"starting"}, 0)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("starting: %d", len(found))
		}
		if err != nil {
			return err
		}
		if in, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", found[0].PID)); !strings.HasPrefix(string(in), "__break_lease") {
			return fmt.Errorf("generation %d is in %q", found[0].Generation, in)
		}
		return nil
	})
}

// The owner of a program makes the exec of a candidate hang. The loop, the garbage collector, the control socket, the probes and signals
// keep working: crankctl abort ends the candidate, -force replaces it with another, and TERM ends crank.
func TestExecHangs(t *testing.T) {
	began := time.Now()
	i := start(t)
	answer := i.hang()
	for range 300 { // enough garbage for some collections, each of which stops the world
		if err := get(i.http, "/metrics"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(get(i.http, "/livez"), get(i.http, "/readyz"), get(i.app, "/")); err != nil {
		t.Error(err)
	}
	if status, err := i.client.Status(t.Context()); err != nil || !status.Ready {
		t.Errorf("status %+v, %v", status, err)
	}
	if _, err := i.client.Reload(t.Context(), control.SwapRequest{}, nil); !strings.Contains(fmt.Sprint(err), "is starting") {
		t.Errorf("a reload meanwhile: %v", err)
	}
	if _, err := i.client.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if reason := <-answer; !strings.HasPrefix(reason, "aborted") {
		t.Errorf("the swap failed: %s", reason)
	}

	answer = i.hang()
	if _, err := i.client.Reload(t.Context(), control.SwapRequest{Force: true, Wait: true}, nil); err != nil {
		t.Errorf("with -force: %v", err)
	}
	if reason := <-answer; !strings.HasPrefix(reason, "replaced") {
		t.Errorf("the swap failed: %s", reason)
	}

	answer = i.hang()
	if err := syscall.Kill(i.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	i.eventually("crank is gone", func() error {
		if err := get(i.http, "/livez"); err == nil {
			return errors.New("it still answers")
		}
		return nil
	})
	if reason := <-answer; !strings.Contains(reason, "shutting down") {
		t.Errorf("the swap failed: %s", reason)
	}
	if took := time.Since(began); took > breakTime(t) {
		t.Errorf("it took %v, longer than a lease holds", took)
	}
}

// TestFirstExecHangs: the exec of the command that crank was started with hangs. TERM ends it, and crank exits with 128 + 15, as a shell would.
func TestFirstExecHangs(t *testing.T) {
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, ready := range map[string]string{"ready none": "none", "ready notify": "notify"} {
		t.Run(name, func(t *testing.T) {
			i := &instance{t: t}
			if i.client, err = control.NewClient(filepath.Join(dir, "web.ctl"), ""); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(bin, "crank"), "-name", "web", "-prefix", dir, "-ready", ready, "--", leased(t))
			began := time.Now()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			i.hangs()
			if status, err := i.client.Status(t.Context()); err != nil || status.Ready {
				t.Errorf("status %+v, %v", status, err)
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 128+int(syscall.SIGTERM) {
				t.Errorf("crank: %v", err)
			}
			if took := time.Since(began); took > breakTime(t) {
				t.Errorf("it took %v, longer than a lease holds", took)
			}
		})
	}
}
