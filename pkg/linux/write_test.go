package linux

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// TestWithoutSignals: a write at the file size limit raises no signal, but a plain write and kill(2) do.
func TestWithoutSignals(t *testing.T) {
	if path := os.Getenv("CRANK_TEST_WRITE"); path != "" {
		if err := writeAtTheLimit(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWithoutSignals$")
	cmd.Env = append(os.Environ(), "CRANK_TEST_WRITE="+filepath.Join(t.TempDir(), "file"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func writeAtTheLimit(path string) error {
	file, err := os.Create(path)
	if err == nil {
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{})
	}
	if err != nil {
		return err
	}
	came := make(chan os.Signal, 10)
	signal.Notify(came, syscall.SIGXFSZ, syscall.SIGWINCH)
	write := func() error { _, err := file.WriteString("text"); return err }
	for _, c := range []struct {
		name string
		do   func() error
		want []os.Signal
	}{
		{"a write without signals", func() error { return WithoutSignals(false, write) }, nil},
		{"a write", write, []os.Signal{syscall.SIGXFSZ}},
		{"kill", func() error {
			return errors.Join(WithoutSignals(false, func() error {
				return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGXFSZ), expect(came, syscall.SIGXFSZ))
			}), syscall.EFBIG)
		}, nil},
	} {
		if err := c.do(); !errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		// The runtime delivers pending signals in the order of their numbers.
		if err := errors.Join(syscall.Kill(os.Getpid(), syscall.SIGWINCH), expect(came, append(c.want, syscall.SIGWINCH)...)); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// expect blocks until these signals have arrived.
func expect(came <-chan os.Signal, want ...os.Signal) error {
	for _, signal := range want {
		if got := <-came; got != signal {
			return fmt.Errorf("got %v, want %v", got, signal)
		}
	}
	return nil
}
