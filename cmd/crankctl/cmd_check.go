package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crankctl/crank/pkg/control"
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
		findings = append(findings, checkCommand(command[0], cwd, s.env.get("PATH")))
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

// checkCommand says whether the file is there, may be executed, and has its interpreter.
func checkCommand(name, cwd, path string) finding {
	if strings.Contains(name, "/") && !filepath.IsAbs(name) && cwd == "" {
		return finding{true, fmt.Sprintf("command %s is relative to a directory that is not known here: give -cwd", name)}
	}
	file, err := findExecutable(name, cwd, path)
	if err != nil {
		return finding{false, fmt.Sprintf("command %s: %v", name, err)}
	}
	if interpreter := interpreterOf(file); interpreter != "" {
		if err := executable(interpreter); err != nil {
			return finding{false, fmt.Sprintf("command %s: its interpreter: %v", file, err)}
		}
	}
	return finding{true, fmt.Sprintf("command %s can be executed", file)}
}

// interpreterOf returns what the first line of a script names (execve(2)), empty for others.
func interpreterOf(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return "" // not readable is still executable
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 256).ReadSlice('\n')
	rest, ok := strings.CutPrefix(string(line), "#!")
	if words := strings.Fields(rest); ok && len(words) > 0 {
		return words[0]
	}
	return ""
}
