// Package execvp has the rules by which execvp(3) turns the first word of a command into a program. pkg/proc follows them between
// fork and exec, and Exec does for crankctl.
package execvp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

const (
	// DefaultPath is searched if PATH is unset. It is glibc's, as in execvp(3); musl puts /usr/local/bin before it.
	DefaultPath = "/bin:/usr/bin"
	// Shell runs text files that have no #! line.
	Shell = "/bin/sh"
	// HeadSize is how much of a file IsText and NoInterpreter examine.
	HeadSize = 256
	// NoFormat is the reason for refusing a file that is neither in a format of execve(2) nor text.
	NoFormat = "neither a program for this machine nor a text file, which " + Shell + " would run"
)

// Path returns the directories to search, separated by colons: the PATH of an environment, or DefaultPath if it has none. An empty
// PATH is the working directory.
func Path(env []string) string {
	for _, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			return path
		}
	}
	return DefaultPath
}

// Searches reports whether a command is looked up in PATH, because it has no slash.
func Searches(name string) bool { return !strings.Contains(name, "/") }

// Candidates returns the files that a command may mean, in the order in which they are to be tried. Those that are relative are
// relative to the working directory, and none starts with a dash, which the shell would take for an option.
func Candidates(name, path string) (files []string) {
	if !Searches(name) {
		return []string{local(name)}
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		files = append(files, local(strings.TrimSuffix(dir, "/")+"/"+name))
	}
	return files
}

func local(file string) string {
	if strings.HasPrefix(file, "-") {
		return "./" + file
	}
	return file
}

// GoesOn reports whether the search continues after this error from execve(2): the file does not exist, or not for this process. After
// any other error it ends: the program was found, and something is wrong with it. Both are as in glibc's posix/execvpe.c.
//
//go:norace
//go:nosplit
func GoesOn(errno syscall.Errno) bool {
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.ESTALE, syscall.ENODEV, syscall.ETIMEDOUT:
		return true
	}
	return false
}

// IsText reports whether Shell is to run a file that execve(2) refused with ENOEXEC, by its first HeadSize bytes. execvp(3) has Shell run
// every such file. A program for another machine is not text, and must not end with an error from the shell.
//
//go:norace
//go:nosplit
func IsText(head []byte) bool {
	for i := range head {
		if head[i] == 0 {
			return false
		}
	}
	return !isELF(head)
}

//go:norace
//go:nosplit
func isELF(head []byte) bool {
	return len(head) >= 4 && head[0] == 0x7f && head[1] == 'E' && head[2] == 'L' && head[3] == 'F'
}

// NoShell returns the error for a text file without a #! line for which Shell could not be executed. It does not match fs.ErrNotExist:
// the command itself exists.
func NoShell(cause error) error {
	return fmt.Errorf("it has no #! line, and %s, which would run it, cannot be executed: %s", Shell, cause.Error())
}

// Unreadable returns the error for a file that execve(2) refused with ENOEXEC and that cannot be read. It
// does not match fs.ErrNotExist either.
func Unreadable(cause error) error {
	return fmt.Errorf("it is not a program for this machine, and cannot be read for %s: %s", Shell, cause.Error())
}

// NoInterpreter returns the error for a file that exists, and whose interpreter does not. head is the start of the file, at most
// HeadSize bytes; empty if it could not be read.
func NoInterpreter(head []byte) error {
	const problem = "its interpreter does not exist"
	switch name := interpreter(head); {
	case isELF(head):
		return errors.New(problem + ": the dynamic loader, as in a program built for another C library: use a static build, or one for this image")
	case name == "":
		return errors.New(problem + " (the #! line, or the dynamic loader of a program built for another C library)")
	case strings.HasSuffix(name, "\r"):
		return fmt.Errorf("%s: %q: save the script with LF line endings, without CR", problem, name)
	default:
		return fmt.Errorf("%s: %q in its #! line", problem, name)
	}
}

// interpreter returns the interpreter that the #! line names, as the kernel reads it (execve(2)); empty: none.
func interpreter(head []byte) string {
	line, isScript := bytes.CutPrefix(head, []byte("#!"))
	if !isScript {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	name, _, _ := strings.Cut(strings.Trim(string(line), " \t"), " ")
	name, _, _ = strings.Cut(name, "\t")
	return name
}
