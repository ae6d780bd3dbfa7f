package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/pid1/spec"
)

// exiting: the init's exit code is the app's.
var exiting = []behaviour{
	{name: "all 256 exit codes", check: func(p *program, _ []string) error {
		for code := range 256 {
			if !p.ours() && code > 3 && code < 250 && code%50 != 0 {
				continue // a sample is enough of others
			}
			if err := exits(p, nil, fmt.Sprintf("exit %d", code), code); err != nil {
				return fmt.Errorf("exit %d: %w", code, err)
			}
		}
		return nil
	}},
	{name: "every signal that ends an app gives 128+n", check: func(p *program, _ []string) error {
		for sig := syscall.Signal(1); sig <= 64; sig++ {
			switch sig {
			case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH, // which end nobody
				syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, 32, 33:
				continue
			}
			if err := exits(p, nil, fmt.Sprintf("kill -%d $$; sleep 1000", sig), 128+int(sig)); err != nil {
				return fmt.Errorf("signal %d: %w", sig, err)
			}
		}
		return nil
	}},
	{name: "a code can be reported as 0", needs: optOK143, check: func(p *program, flags []string) error {
		if err := exits(p, flags, "exit 143", 0); err != nil {
			return err
		}
		return exits(p, flags, "exit 142", 142)
	}},
	{name: "not found: 127", check: func(p *program, _ []string) error {
		return cannotRun(p, 127, "/no/such/program", "no-such-program")
	}},
	{name: "not executable: 126", check: func(p *program, _ []string) error {
		return cannotRun(p, 126, "/etc/passwd", "/etc")
	}},
	{name: "a text file without a #! line is run by /bin/sh, as by execvp(3)", check: func(p *program, _ []string) error {
		return inFiles(map[string]string{"text": "[ \"$1\" = 'a b' ] && exit 7\n", "empty": ""}, func(dir string) error {
			return errors.Join(searched(p, "PATH=/bin", 7, dir+"/text", "a b"), searched(p, "PATH="+dir, 7, "text", "a b"), searched(p, "PATH=/bin", 0, dir+"/empty"))
		})
	}},
	{name: "PATH is searched as by execvp(3): on after a missing interpreter; unset; empty", check: func(p *program, _ []string) error {
		return inFiles(map[string]string{"a/cmd": "#!/no/such/interpreter\n", "b/cmd": "#!/bin/sh\nexit 7\n"}, func(dir string) error {
			return errors.Join(searched(p, "PATH="+dir+"/a:"+dir+"/b", 7, "cmd"), searched(p, "A=b", 0, "true"), searched(p, "PATH=", 0, "true"))
		})
	}},
}

// inFiles calls f with a world-readable directory that holds these executable files.
func inFiles(files map[string]string, f func(dir string) error) error {
	dir, err := os.MkdirTemp("", "pid1")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755), os.Chmod(path, 0o755)); err != nil {
			return err
		}
	}
	return errors.Join(os.Chmod(dir, 0o755), f(dir))
}

// searched runs a command with one variable, in /bin.
func searched(p *program, variable string, code int, command ...string) error {
	err := inContainer(p, options{spec: spec.Spec{Env: []string{variable}, Dir: "/bin"}}, nil, command, func(c *container) error { return c.ends(code) })
	if err != nil {
		return fmt.Errorf("%q with %s: %w", command, variable, err)
	}
	return nil
}

func exits(p *program, flags []string, script string, code int) error {
	return inContainer(p, options{}, flags, []string{"/bin/sh", "-c", script}, func(c *container) error { return c.ends(code) })
}

func cannotRun(p *program, code int, commands ...string) error {
	for _, command := range commands {
		err := inContainer(p, options{}, nil, []string{command}, func(c *container) error {
			if err := c.ends(code); err != nil {
				return err
			}
			if text := c.stderr.String(); !strings.Contains(text, command) {
				return fmt.Errorf("it does not say what it cannot run: %q", text)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// TestOKCodes: each code alone, and all but one.
func TestOKCodes(t *testing.T) {
	ourModes(t, func(t *testing.T, p *program) {
		for _, tt := range []struct {
			ok         string
			code, want int
		}{
			{"0-255", 77, 0}, {"143", 143, 0}, {"143", 15, 15}, {"1-9,11-255", 10, 10}, {"1-9,11-255", 9, 0}, {"1-9,11-255", 255, 0}, {"3,5", 5, 0}, {"3,5", 4, 4},
		} {
			if err := exits(p, []string{"-ok-codes", tt.ok}, fmt.Sprintf("exit %d", tt.code), tt.want); err != nil {
				t.Errorf("-ok-codes %s, exit %d: %v", tt.ok, tt.code, err)
			}
		}
		if err := exits(p, []string{"-ok-codes", "143"}, "kill -TERM $$; sleep 1000", 0); err != nil {
			t.Error(err)
		}
	})
}

// TestOwnCodes are crank's own exit codes, which no app's end looks like by accident.
func TestOwnCodes(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	must(t, os.WriteFile(broken, []byte("#!/no/such/interpreter\n"), 0o755))
	must(t, os.Chmod(filepath.Dir(broken), 0o755))
	ourModes(t, func(t *testing.T, p *program) {
		for _, tt := range []struct {
			name       string
			flags, app []string
			code       int
		}{
			{"not ready in time", []string{"-ready", "notify", "-start", "100ms"}, []string{"/bin/sleep", "1000"}, 124},
			{"bad flag", []string{"-no-such-flag"}, []string{"/bin/true"}, 125},
			{"bad value", []string{"-stop", "soon"}, []string{"/bin/true"}, 125},
			{"no command and no control socket", []string{"-ctl", "off", "-conf", "off"}, nil, 125},
			{"cannot bind", []string{"-bind", "192.0.2.1:1"}, []string{"/bin/true"}, 125},
			{"missing interpreter", nil, []string{broken}, 126},
			{"empty command", nil, []string{""}, 125},
			{"help", []string{"-help"}, nil, 0},
			{"version", []string{"-version"}, nil, 0},
		} {
			err := inContainer(p, options{}, tt.flags, tt.app, func(c *container) error { return c.ends(tt.code) })
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	})
}
