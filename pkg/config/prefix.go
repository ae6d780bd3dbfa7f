package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/rundir"
)

// ResolvePrefix makes the runtime directory and returns its absolute path. asked is Config.Prefix.
//
// One that was asked for and cannot be used is an error. If none was asked for and none can be
// used, dir is "" and warn says so in one line: crank then runs without a control socket and a
// saved command.
func ResolvePrefix(asked string) (dir, warn string, err error) {
	return resolvePrefix(asked, rundir.Make)
}

func resolvePrefix(asked string, prepare func(string) (string, error)) (dir, warn string, err error) {
	dir, err = prepare(asked)
	switch {
	case err == nil:
		return dir, "", nil
	case asked != "":
		advice := "choose another"
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			advice = "make it writable for this user, or choose another"
		}
		return "", "", fmt.Errorf("-prefix (CRANK_PREFIX): %w: %s", err, advice)
	}
	return "", fmt.Sprintf("%v: running without a control socket and a saved command; "+
		"mount a writable directory at /run/crank, or set CRANK_PREFIX", err), nil
}

// ConfPath returns the absolute path of the saved command's file, or "" for none. dir is what
// ResolvePrefix returned.
func (c Config) ConfPath(dir string) string { return c.file(c.Conf, dir, ".conf") }

// CtlAddress returns the absolute path of the control socket, a tcp:// address as it was given, or
// "" for none. dir is what ResolvePrefix returned.
func (c Config) CtlAddress(dir string) string {
	if strings.HasPrefix(c.Ctl, "tcp://") {
		return c.Ctl
	}
	return c.file(strings.TrimPrefix(c.Ctl, "unix://"), dir, ".ctl")
}

func (c Config) file(given, dir, suffix string) string {
	switch {
	case given == "off", given == "" && dir == "":
		return ""
	case given == "":
		return filepath.Join(dir, c.Name+suffix)
	}
	path, err := rundir.Absolute(given)
	if err != nil { // the working directory is gone
		return given
	}
	return path
}
