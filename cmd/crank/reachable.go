package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control/server"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/rundir"
)

// lookTime is how often crank checks that the path of its control socket leads to it.
const lookTime = time.Second

// stayReachable binds the control socket again when its path no longer leads to it: after a tmp cleaner or a stray rm, with the
// runtime directory or without it, or when a dead socket has its name. The old one is then unreachable. Any other file at
// the path is left alone and reported: a link, or a socket that another process serves. serve is given the new listener. It returns once
// done is closed.
func (c *crank) stayReachable(serve func(*server.Listener), done <-chan struct{}) {
	path := strings.TrimPrefix(c.ctl, "unix://")
	if strings.HasPrefix(path, "tcp://") {
		return
	}
	directory, _ := os.Stat(c.prefix) // nil: deleted already
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	var reported string // what is wrong; empty: nothing
	for current := c.listener; ; {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		wrong := current.CheckPath()
		if wrong == nil {
			reported = ""
			continue
		}
		next, err := c.listenAgain(path, directory)
		if err == nil {
			serve(next)
			_ = current.Close() // the path that it would remove is no longer its own
			current, reported = next, ""
			c.log.Info("control socket recreated", "path", path, "cause", wrong.Error())
			continue
		}
		if errors.Is(wrong, fs.ErrNotExist) {
			wrong = err
		}
		if wrong.Error() != reported {
			reported = wrong.Error()
			logging.Warn(c.log, "control socket unreachable", "path", path, "cause", reported)
		}
	}
}

// listenAgain also makes the runtime directory again, with the mode that it had.
func (c *crank) listenAgain(path string, directory fs.FileInfo) (*server.Listener, error) {
	if filepath.Dir(path) == c.prefix {
		if err := rundir.Remake(c.prefix, directory); err != nil {
			return nil, err
		}
	}
	return server.Listen(c.ctl, "")
}
