package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// directory determines the directory that generations start in unless crankctl run names another one. It is kept as text: each generation
// enters it anew, so that a repointed symlink leads to the new release. crank itself stays where it is.
func (c *crank) directory() error {
	here := namedDirectory()
	if c.cfg.Cwd == "" {
		c.dir = here
		return nil
	}
	c.dir = c.cfg.Cwd
	if !filepath.IsAbs(c.dir) {
		if here == "" {
			here, _ = syscall.Getwd() // if the directory is gone, c.dir cannot be entered
		}
		c.dir = within(here, c.dir)
	}
	if err := canEnter(c.dir); err != nil {
		return fmt.Errorf("-cwd (CRANK_CWD): cannot enter %s: %w: create the directory, or choose another", c.dir, err)
	}
	return nil
}

// namedDirectory returns $PWD if it names crank's working directory, as for pwd -L (POSIX), and "" otherwise. After a cd to a symlink,
// PWD holds the symlink's name, while getcwd(3) returns the directory's. Names below /proc and /dev/fd mean another directory in another
// process.
func namedDirectory() string {
	name := os.Getenv("PWD")
	if !filepath.IsAbs(name) || isOwnView(name) || canEnter(name) != nil {
		return ""
	}
	here, err := os.Stat(".")
	if err != nil {
		return ""
	}
	named, err := os.Stat(name)
	if err != nil || !os.SameFile(here, named) {
		return ""
	}
	return name
}

// isOwnView reports whether a name means another file in another process.
func isOwnView(name string) bool {
	clean := filepath.Clean(name)
	return strings.HasPrefix(clean, "/proc/") || strings.HasPrefix(clean, "/dev/fd/")
}

// within joins two paths. It does not resolve "..", whose meaning depends on the symlink before it.
func within(dir, name string) string {
	if strings.Contains(name, "..") {
		return dir + "/" + name
	}
	return filepath.Join(dir, name)
}

// canEnter returns why chdir(2) would fail.
func canEnter(dir string) error {
	const search = 1 // X_OK
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return cause(err)
	case !info.IsDir():
		return syscall.ENOTDIR
	}
	return syscall.Access(dir, search)
}

// cause returns an error without the path.
func cause(err error) error {
	if at, ok := errors.AsType[*os.PathError](err); ok {
		return at.Err
	}
	return err
}
