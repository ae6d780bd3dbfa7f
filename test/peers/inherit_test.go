package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// inheritanceStories: what the app finds.
var inheritanceStories = []story{
	{
		name: "TTOU, SEGV, INT are ignored and TTIN, ILL, TERM blocked",
		want: same("ignored 2, blocked 21").but("ignored 2 11 22, blocked 4 15 21", tini).
			but("ignored none, blocked none", dumbInit).but("ignored 2 11 22, blocked 4 15 20 to 22", catatonit),
		why: "crank's runtime changes them before crank can read them",
		doc: docInherited,
		run: dispositions,
	},
	{
		name: "the environment",
		as:   pid1,
		want: everybody("unchanged").but("unchanged, and CRANK_CTL CRANK_GENERATION CRANK_NAME CRANK_SLOT NOTIFY_FD NOTIFY_SOCKET", crank),
		why:  "the app talks to crank through them",
		doc:  docRules,
		run:  environment,
	},
	{
		name: "stdin",
		want: everybody("the init's"),
		run: func(r *run) (string, error) {
			path := filepath.Join(r.dir, "in")
			if err := os.WriteFile(path, []byte("the init's\n"), 0o644); err != nil {
				return "", err
			}
			in, err := os.Open(path)
			if err != nil {
				return "", err
			}
			defer in.Close()
			r.stdin = in
			p, err := r.start("/bin/cat")
			if err != nil {
				return "", err
			}
			return p.line("")
		},
	},
	{
		name: "three more open descriptors",
		want: everybody("reach the app").but("stay away from the app", crank),
		why:  "descriptors not meant for the app are closed",
		doc:  docInit,
		run:  descriptors,
	},
}

// cLibrary are 32 and 33 in a mask: the C library's, which may be ignored already where the tests run, and which no Go program can reset.
const cLibrary = 1<<31 | 1<<32

func dispositions(r *run) (string, error) {
	r.spec.Ignore = []syscall.Signal{syscall.SIGTTOU, syscall.SIGSEGV, syscall.SIGINT}
	r.spec.Block = []syscall.Signal{syscall.SIGTTIN, syscall.SIGILL, syscall.SIGTERM}
	p, err := r.start("/bin/cat", "/proc/self/status")
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for _, line := range p.rest() {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		found[name] = list(n &^ cLibrary)
	}
	return fmt.Sprintf("ignored %s, blocked %s", found["SigIgn"], found["SigBlk"]), nil
}

func environment(r *run) (string, error) {
	given := []string{"A=b=c d", "EMPTY=", "HOME=/nowhere", "PATH=/usr/bin:/bin"}
	r.spec.Env = given
	p, err := r.start("/usr/bin/env")
	if err != nil {
		return "", err
	}
	var more []string
	kept := 0
	for _, line := range p.rest() {
		if slices.Contains(given, line) {
			kept++
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		more = append(more, name)
	}
	if kept != len(given) {
		return fmt.Sprintf("%d of %d kept", kept, len(given)), nil
	}
	if more == nil {
		return "unchanged", nil
	}
	slices.Sort(more)
	return "unchanged, and " + strings.Join(more, " "), nil
}

func descriptors(r *run) (string, error) {
	r.spec.Leak = 3
	p, err := r.start("/bin/ls", "-l", "/proc/self/fd")
	if err != nil {
		return "", err
	}
	leaked := 0
	for _, line := range p.rest() {
		if regexp.MustCompile(` ([3-9]|\d\d+) -> /dev/null$`).MatchString(line) {
			leaked++
		}
	}
	switch {
	case leaked == 0:
		return "stay away from the app", nil
	case leaked < 3:
		return fmt.Sprint("only ", leaked), nil
	}
	return "reach the app", nil // perhaps with others, which the test itself was started with
}

// commandLineStories: options, and commands that cannot be executed.
var commandLineStories = []story{
	{
		name: "no command",
		as:   pid1,
		want: everybody("1").but("125", crank),
		why:  "1 could be the app's",
		doc:  docCodes,
		run:  func(r *run) (string, error) { return r.exit() },
	},
	{
		name:  "no command, but a name for the instance",
		as:    pid1,
		flags: flags{crank: {"-name", "app"}},
		want:  everybody("1").but("it waits for crankctl run", crank),
		why:   "a command can come later",
		doc:   docFirst,
		run:   noCommand,
	},
	{
		name:  "an option that does not exist",
		as:    pid1,
		flags: flags{crank: {"-Z"}, tini: {"-Z"}, dumbInit: {"-Z"}, catatonit: {"-Z"}},
		want:  everybody("1").but("125", crank),
		why:   "1 could be the app's",
		doc:   docCodes,
		run:   func(r *run) (string, error) { return r.exit("/bin/true") },
	},
	{
		name:  "help",
		as:    pid1,
		flags: flags{crank: {"-h"}, tini: {"-h"}, dumbInit: {"-h"}, catatonit: {"-h"}},
		want:  everybody("0"),
		run:   func(r *run) (string, error) { return r.exit() },
	},
	{
		name:  "version",
		as:    pid1,
		flags: flags{crank: {"--version"}, tini: {"--version"}, dumbInit: {"--version"}, catatonit: {"--version"}},
		want:  everybody("0"),
		run:   func(r *run) (string, error) { return r.exit() },
	},
	{
		name: "a command without -- before it",
		as:   pid1,
		want: everybody("3").but("1: its options are the init's", tini, catatonit),
		why:  "options end at the first word that is not one",
		doc:  docRules,
		run: func(r *run) (string, error) {
			p, err := r.execute([]string{r.path, "/bin/sh", "-c", "exit $1", "sh", "3"})
			if err != nil {
				return "", err
			}
			code, err := p.end()
			return map[string]string{"3": "3", "1": "1: its options are the init's"}[code], err
		},
	},
	{
		name: "a command of the name of an option, after --",
		as:   pid1,
		want: everybody("0"),
		run: func(r *run) (string, error) {
			if err := os.Symlink("/bin/true", filepath.Join(r.dir, "-h")); err != nil {
				return "", err
			}
			r.spec.Env = []string{"PATH=" + r.dir}
			return r.exit("-h")
		},
	},
	{
		name: "a path that does not exist",
		want: everybody("127").but("2", dumbInit).but("1", catatonit),
		why:  "as a shell",
		doc:  docCodes,
		run:  func(r *run) (string, error) { return r.exit("/no/such/program") },
	},
	{
		name: "a name that is not in PATH",
		want: everybody("127").but("2", dumbInit).but("1", catatonit),
		why:  "as a shell",
		doc:  docCodes,
		run:  func(r *run) (string, error) { return r.exit("no-such-program") },
	},
	{
		name: "a file that is not executable",
		want: everybody("126").but("2", dumbInit).but("1", catatonit),
		why:  "as a shell",
		doc:  docCodes,
		run:  func(r *run) (string, error) { return r.exit("/etc/passwd") },
	},
	{
		name: "a directory",
		want: everybody("126").but("2", dumbInit).but("1", catatonit),
		why:  "as a shell",
		doc:  docCodes,
		run:  func(r *run) (string, error) { return r.exit("/etc") },
	},
	{
		name: "a script whose interpreter is missing",
		want: outcomes{crank: "126", tini: "127", dumbInit: "2", catatonit: "1"},
		why:  "the script is there, and cannot be executed",
		doc:  docCodes,
		run: func(r *run) (string, error) {
			path := filepath.Join(r.dir, "script")
			if err := os.WriteFile(path, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
				return "", err
			}
			return r.exit(path)
		},
	},
	{
		name: "a script without #!",
		want: everybody("3"),
		run:  inPath("exit 3\n", ""),
	},
	{
		name: "PATH is not set",
		want: everybody("0"),
		run: func(r *run) (string, error) {
			r.spec.Env = []string{"HOME=/"}
			return r.exit("true")
		},
	},
	{
		name: "a script whose interpreter is missing comes first in PATH, and then a good one",
		want: everybody("3"),
		run:  inPath("#!/no/such/interpreter\n", "#!/bin/sh\nexit 3\n"),
	},
	{
		name: "the message names the command that cannot be executed",
		want: same("yes", tini, dumbInit), // catatonit names nothing
		run: func(r *run) (string, error) {
			p, err := r.start("/no/such/program")
			if err != nil {
				return "", err
			}
			_, err = p.end()
			return map[bool]string{true: "yes", false: "no"}[strings.Contains(p.stderr.String(), "/no/such/program")], err
		},
	},
}

// noCommand sees the exit code, or that crank made its control socket.
func noCommand(r *run) (string, error) {
	p, err := r.start()
	if err != nil || r.who != crank {
		if err == nil {
			return p.end()
		}
		return "", err
	}
	return r.settle(func() string {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/crank/app.ctl", p.pid)); err != nil {
			return err.Error()
		}
		return "it waits for crankctl run"
	}), nil
}

// inPath executes a script by its name. PATH has two directories with such scripts; no text: none.
func inPath(first, second string) func(*run) (string, error) {
	return func(r *run) (string, error) {
		r.spec.Env = []string{"PATH=" + r.dir + "/a:" + r.dir + "/b:/usr/bin:/bin"}
		for dir, text := range map[string]string{"a": first, "b": second} {
			path := filepath.Join(r.dir, dir, "script")
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				return "", err
			}
			if text == "" {
				continue
			}
			if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
				return "", err
			}
		}
		return r.exit("script")
	}
}
