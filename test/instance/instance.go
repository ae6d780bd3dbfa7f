// Package instance is a crank with an app on a TCP socket of loopback, for tests that drive it from outside.
package instance

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/processes"
)

// patience is how long a single thing may take on a busy machine; nothing is asserted about less.
const patience = 2 * time.Minute

// Instance is one crank. Its methods fail the test where something goes wrong.
type Instance struct {
	Address string // where its app serves

	t       *testing.T
	bin     string
	prefix  string
	process *exec.Cmd
	ended   chan struct{} // closed when process has been waited for
}

// Start starts the crank in the directory bin with the flags and the app, and waits until that is ready. The app finds
// crankctl in its PATH. At the end of the test crank is ended, and if the test has failed, the log is shown.
func Start(t *testing.T, bin string, flags []string, app ...string) *Instance {
	t.Helper()
	prefix, err := os.MkdirTemp("", "c") // short: the path of a socket has 107 bytes
	if err == nil {
		err = os.Chmod(prefix, 0o711) // as crank creates it
	}
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(prefix, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	i := &Instance{t: t, bin: bin, prefix: prefix, ended: make(chan struct{})}
	args := []string{"-bind", "127.0.0.1:0", "-prefix", prefix, "-settle", "100ms"}
	i.process = exec.Command(filepath.Join(bin, "crank"), slices.Concat(args, flags, []string{"--"}, app)...)
	i.process.Env, i.process.Stdout, i.process.Stderr = processes.Environment("PATH="+bin+":"+os.Getenv("PATH")), log, log
	if err := i.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		i.process.Wait()
		close(i.ended)
	}()
	t.Cleanup(i.clean)
	i.find()
	return i
}

// find waits for the first generation and asks where it serves.
func (i *Instance) find() {
	i.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		conn, err := net.Dial("unix", filepath.Join(i.prefix, "app.ctl")) // it is there before somebody listens
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-i.ended:
			i.t.Fatal("crank has ended")
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				i.t.Fatal("crank does not start")
			}
		}
	}
	i.Crankctl("wait", "-ready")
	var info control.Info
	if err := json.Unmarshal(i.Crankctl("info", "-o", "json"), &info); err != nil {
		i.t.Fatal(err)
	}
	_, i.Address, _ = strings.Cut(info.Sockets[0].Bound, "://")
}

// Try runs a verb, and returns what it wrote to stdout.
func (i *Instance) Try(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return exec.CommandContext(ctx, filepath.Join(i.bin, "crankctl"), append([]string{"-prefix", i.prefix}, args...)...).Output()
}

// Crankctl runs a verb, which must succeed, and returns what it wrote on stdout.
func (i *Instance) Crankctl(args ...string) []byte {
	i.t.Helper()
	out, err := i.Try(args...)
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		i.t.Fatalf("crankctl %v: %v\n%s", args, err, out)
	}
	return out
}

// Terminate asks crank, and by that the app, to end.
func (i *Instance) Terminate() {
	i.t.Helper()
	if err := i.process.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatal(err)
	}
}

// PID is crank's process id.
func (i *Instance) PID() int { return i.process.Process.Pid }

// Log returns what crank has logged so far, and what its app has written.
func (i *Instance) Log() string {
	log, err := os.ReadFile(filepath.Join(i.prefix, "log"))
	if err != nil {
		i.t.Fatal(err)
	}
	return string(log)
}

// Ended is closed when crank has ended.
func (i *Instance) Ended() <-chan struct{} { return i.ended }

// Wait waits until crank has ended. Its exit code, which is the app's, must be 0.
func (i *Instance) Wait() {
	i.t.Helper()
	select {
	case <-i.ended:
		if !i.process.ProcessState.Success() {
			i.t.Errorf("crank ended with %v", i.process.ProcessState)
		}
	case <-time.After(patience):
		i.t.Fatal("crank does not end")
	}
}

// clean ends what a test that has failed has left. After one that has not, nothing may be left.
func (i *Instance) clean() {
	i.process.Process.Signal(syscall.SIGTERM) // so that none is started again
	if i.t.Failed() {
		i.killApps()
	}
	select {
	case <-i.ended:
	case <-time.After(patience):
		i.t.Error("crank does not end on TERM")
		i.process.Process.Kill()
		<-i.ended
	}
	if left := i.killApps(); left > 0 {
		i.t.Errorf("%d processes of the app are left", left)
	}
	if log, err := os.ReadFile(filepath.Join(i.prefix, "log")); i.t.Failed() && err == nil {
		i.t.Logf("the end of the log:\n%s", log[max(0, len(log)-8<<10):])
	}
	os.RemoveAll(i.prefix)
}

// killApps kills the processes that this crank has started, known by what it says to them, and returns their number.
func (i *Instance) killApps() int {
	left := processes.With("CRANK_CTL=" + filepath.Join(i.prefix, "app.ctl"))
	for _, pid := range left {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(left)
}
