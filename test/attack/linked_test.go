package attack_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/attack"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

// Variables that turn the test binary into the app that takes crank's name: a file for all that it receives, how, and the two paths.
const receivedVariable, takeVariable, ownVariable, takenVariable = "ATTACK_RECEIVED", "ATTACK_TAKE", "ATTACK_OWN", "ATTACK_TAKEN"

// impersonate gives the unix socket that crank passed on the name of crank's control socket, answers on it, and records what it receives.
func impersonate(received string) error {
	file, err := os.OpenFile(received, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	l, err := net.FileListener(os.NewFile(3, "bind"))
	if err != nil {
		return err
	}
	take := map[string]func(string, string) error{"link": os.Link, "symlink": os.Symlink, "rename": os.Rename}[os.Getenv(takeVariable)]
	own, taken := os.Getenv(ownVariable), os.Getenv(takenVariable)
	if err := errors.Join(os.Remove(taken), take(own, taken)); err != nil {
		return err
	}
	if _, err := io.WriteString(file, "taken\n"); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			buffer := make([]byte, 64<<10)
			for n, err := conn.Read(buffer); err == nil; n, err = conn.Read(buffer) {
				_, _ = file.Write(buffer[:n])
				_, _ = io.WriteString(conn, attack.Nothing)
			}
		}()
	}
}

// root's crank has bound a unix socket for an app of user 65534. That app gives it the name of the control socket, in a directory where
// it may do so. root called listen(2) on it, but does not answer on it, so root's crankctl sends nothing. crank reports the replacement.
func TestAppTakesControlSocket(t *testing.T) {
	root.Need(t)
	programs.Need(t, "setpriv")
	for _, how := range []string{"link", "rename", "symlink"} {
		t.Run(how, func(t *testing.T) {
			i := startImpersonated(t, how)
			var out bytes.Buffer
			cmd := exec.Command(filepath.Join(bin, "crankctl"), "-ctl", i.ctl, "-timeout", "30s", "run", "-wait", "-env", "DB_PASSWORD=hunter2", "--", "app")
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			content, readErr := os.ReadFile(filepath.Join(filepath.Dir(i.ctl), "received"))
			if readErr != nil || strings.Contains(string(content), "hunter2") {
				t.Errorf("the app received %q, %v", content, readErr)
			}
			if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(out.String(), "65534") {
				t.Errorf("crankctl: %v: %s", err, out.String())
			}
			i.eventually("crank reports it", func() error {
				if log, err := os.ReadFile(i.log()); err != nil || !strings.Contains(string(log), "control socket unreachable") {
					return fmt.Errorf("the log is %q, %w", log, err)
				}
				return nil
			})
		})
	}
}

func (i *instance) log() string { return filepath.Join(filepath.Dir(i.ctl), "log") }

// startImpersonated returns once the app has taken the name.
func startImpersonated(t *testing.T, how string) *instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	i := &instance{t: t, ctl: filepath.Join(dir, "web.ctl")}
	self, received, bound := filepath.Join(dir, "app"), filepath.Join(dir, "received"), filepath.Join(dir, "app.sock")
	program, err := os.ReadFile("/proc/self/exe")
	log, logErr := os.Create(i.log())
	if err := errors.Join(err, logErr, os.Chmod(dir, 0o777), os.WriteFile(self, program, 0o755)); err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "crank"), "-name", "web", "-prefix", dir, "-bind", "unix://"+bound+"?user=65534&mode=0600", "-ready", "none", "--",
		"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", self)
	cmd.Env = append(os.Environ(), receivedVariable+"="+received, takeVariable+"="+how, ownVariable+"="+bound, takenVariable+"="+i.ctl)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // by the app's signal
	})
	i.eventually("the app has taken the name", func() error {
		if content, _ := os.ReadFile(received); !bytes.HasPrefix(content, []byte("taken\n")) {
			return errors.New("not yet")
		}
		return nil
	})
	return i
}
