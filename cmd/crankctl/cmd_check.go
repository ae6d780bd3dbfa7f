package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/execvp"
)

var cmdCheck = &command{
	name:    "check",
	args:    "[--] [command [arg ...]]",
	summary: "say whether crank is reached and a command could be executed, without a swap",
	details: `Without a command it checks the current one. It looks at files from here: in another container
than crank's it sees others.`,
	examples: []string{"crankctl check", "crankctl check -- /app --v2"},
	setup: func(fs *flag.FlagSet) action {
		cwd := fs.String("cwd", "", "the working `directory` that a relative command starts from")
		return func(s *session, args []string) error {
			info, err := s.client.Info(s.ctx)
			if err != nil {
				return err
			}
			return s.check(info, args, *cwd)
		}
	},
}

// finding is one line of check.
type finding struct {
	OK   bool   `json:"ok"`
	What string `json:"what"`
}

func (s *session) check(info control.Info, command []string, cwd string) error {
	findings := []finding{{true, fmt.Sprintf("crank %s answers (pid %d, %s)", info.Name, info.PID, info.Version)}}
	if info.Current != nil {
		if len(command) == 0 {
			command = info.Current.Command
		}
		if cwd == "" {
			cwd = info.Current.Cwd
		}
	}
	if len(command) > 0 {
		findings = append(findings, checkCommand(command[0], cwd, s.env))
	}
	failed := false
	for _, f := range findings {
		failed = failed || !f.OK
	}
	if done, err := s.json(findings); done {
		return firstError(err, quietIf(failed))
	}
	for _, f := range findings {
		mark := "ok  "
		if !f.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(s.stdout, "%s  %s\n", mark, clean(f.What))
	}
	return quietIf(failed)
}

func quietIf(failed bool) error {
	if failed {
		return errQuiet
	}
	return nil
}

// checkCommand looks the command up as crank would (execvp(3)), without executing it.
func checkCommand(name, cwd string, env environment) finding {
	if !execvp.Searches(name) && !filepath.IsAbs(name) && cwd == "" {
		return finding{true, fmt.Sprintf("command %s is relative to a directory that is not known here: give -cwd", name)}
	}
	path := execvp.Path(env)
	var found error
	for _, file := range execvp.Candidates(name, path) {
		if !filepath.IsAbs(file) {
			file = filepath.Join(cwd, file)
		}
		byShell, err := execvp.Look(file)
		if err == nil {
			return executable(file, byShell)
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			found = fmt.Errorf("command %s: %w", file, err)
		}
	}
	switch {
	case found != nil:
		return finding{false, found.Error()}
	case execvp.Searches(name):
		return finding{false, fmt.Sprintf("command %s: %v in PATH=%s", name, fs.ErrNotExist, path)}
	}
	return finding{false, fmt.Sprintf("command %s: %v", name, fs.ErrNotExist)}
}

func executable(file string, byShell bool) finding {
	what := fmt.Sprintf("command %s can be executed", file)
	if byShell {
		what += ", by " + execvp.Shell + ": it has no #! line"
	}
	return finding{true, what}
}
