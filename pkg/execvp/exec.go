package execvp

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Exec replaces this process with a command and an environment, as execvpe(3) does. It returns only on failure. The error matches
// fs.ErrNotExist if there is no such command; otherwise it names the file that was found.
func Exec(argv, env []string) error {
	path := Path(env)
	var refused, broken error
	for _, file := range Candidates(argv[0], path) {
		err := execute(file, argv, env)
		var errno syscall.Errno
		switch missing := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR); {
		case !errors.As(err, &errno) || !GoesOn(errno):
			return fmt.Errorf("cannot execute %s: %w", file, err)
		case !missing:
			refused = fmt.Errorf("cannot execute %s: %w", file, refusal(file, err))
		case Check(file) == nil:
			head, _ := readHead(file)
			broken = fmt.Errorf("cannot execute %s: %w", file, NoInterpreter(head))
		}
	}
	switch {
	case refused != nil:
		return refused
	case broken != nil:
		return broken
	case Searches(argv[0]):
		return fmt.Errorf("cannot find %s: %w in PATH=%s", argv[0], fs.ErrNotExist, path)
	}
	return fmt.Errorf("cannot execute %s: %w", argv[0], syscall.ENOENT)
}

// execute executes one candidate. An error from the shell is not the candidate's, and ends the search.
func execute(file string, argv, env []string) error {
	err := syscall.Exec(file, argv, env)
	if err != syscall.ENOEXEC {
		return err
	}
	head, err := readHead(file)
	switch {
	case err != nil:
		return Unreadable(err)
	case !IsText(head):
		return fmt.Errorf("%w (%s)", syscall.ENOEXEC, NoFormat)
	}
	return NoShell(syscall.Exec(Shell, slices.Concat([]string{Shell, file}, argv[1:]), env))
}

// refusal returns a more specific error than that of execve(2), if the file's mode explains it.
func refusal(file string, err error) error {
	return cmp.Or(Check(file), err)
}

// readHead returns the first HeadSize bytes of a file, or all of a shorter one.
func readHead(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // its owner may hold a lease on it (fcntl(2))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, HeadSize))
}

// Check returns why a file cannot be executed, judging by its type and mode.
func Check(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("it is a directory: %w", fs.ErrPermission)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("it has no execute permission: %w", fs.ErrPermission)
	}
	return nil
}

// Look checks a file as Check does, and the interpreter that it needs. byShell reports whether that is Shell because the file is text
// without a #! line.
func Look(file string) (byShell bool, err error) {
	if err := Check(file); err != nil {
		return false, err
	}
	head, readErr := readHead(file)
	name := interpreter(head)
	byShell = readErr == nil && name == "" && IsText(head)
	switch {
	case byShell:
		name = Shell
	case name == "": // a binary, or a file that cannot be read, which is not required for execution
		return false, nil
	}
	err = Check(name)
	switch {
	case err == nil:
		return byShell, nil
	case byShell:
		return true, NoShell(err)
	case errors.Is(err, fs.ErrNotExist):
		return false, NoInterpreter(head)
	}
	return false, fmt.Errorf("its interpreter %q: %w", name, err)
}
