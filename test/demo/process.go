package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// startProcess runs a program without the variables that would steer crank.
func startProcess(path string, args []string, stdout, stderr *os.File) (*os.Process, error) {
	return os.StartProcess(path, append([]string{filepath.Base(path)}, args...), &os.ProcAttr{
		Env:   environment(os.Environ()),
		Files: []*os.File{nil, stdout, stderr},
	})
}

func environment(from []string) (env []string) {
	for _, variable := range from {
		if !strings.HasPrefix(variable, "CRANK_") && !strings.HasPrefix(variable, "NOTIFY_") && !strings.HasPrefix(variable, "APP_") {
			env = append(env, variable)
		}
	}
	return env
}

// crankctl runs one command to its end. Exit codes are not errors.
func (d *demo) crankctl(ctx context.Context, args ...string) (code int, stdout, stderr string, err error) {
	out, err := os.CreateTemp(d.dir, "stdout")
	if err != nil {
		return 0, "", "", err
	}
	defer discard(out)
	messages, err := os.CreateTemp(d.dir, "stderr")
	if err != nil {
		return 0, "", "", err
	}
	defer discard(messages)

	args = append([]string{"-prefix", d.dir, "-name", "demo"}, args...)
	p, err := startProcess(filepath.Join(d.bin, "crankctl"), args, out, messages)
	if err != nil {
		return 0, "", "", err
	}
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	defer stop()
	state, err := p.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return state.ExitCode(), content(out), content(messages), err
}

// ask reads the JSON that a command prints, whatever its exit code.
func (d *demo) ask(ctx context.Context, answer any, args ...string) error {
	code, stdout, stderr, err := d.crankctl(ctx, args...)
	if err != nil {
		return fmt.Errorf("crankctl %s: %w", args[0], err)
	}
	if err := json.Unmarshal([]byte(stdout), answer); err != nil {
		return fmt.Errorf("crankctl %s printed no JSON (%w) and ended with %d: %s", args[0], err, code, stderr)
	}
	return nil
}

func content(f *os.File) string {
	data, _ := os.ReadFile(f.Name())
	return strings.TrimSpace(string(data))
}

func discard(f *os.File) {
	f.Close()
	os.Remove(f.Name())
}

// withoutScheme makes host:port of tcp://host:port.
func withoutScheme(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		return rest
	}
	return address
}
