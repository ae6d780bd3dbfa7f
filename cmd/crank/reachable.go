package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control/server"
	"github.com/crankctl/crank/pkg/rundir"
)

// lookTime is how often crank looks whether its control socket is still there.
const lookTime = time.Second

// stayReachable binds the control socket again where its path has gone, with the runtime directory or without it: a cleaner of
// /tmp, or an rm too many. Nobody could reach the old one any more. Whatever is at the path instead is left alone. serve is
// given the new one. It returns once done is closed.
func (c *crank) stayReachable(serve func(*server.Listener), done <-chan struct{}) {
	path := strings.TrimPrefix(c.ctl, "unix://")
	if strings.HasPrefix(path, "tcp://") {
		return
	}
	mode := fs.FileMode(0o711) // of the runtime directory
	if info, err := os.Stat(c.prefix); err == nil {
		mode = info.Mode().Perm()
	}
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	var said string
	for current := c.listener; ; {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		next, err := c.listenAgain(path, mode)
		switch {
		case err == nil:
			serve(next)
			_ = current.Close() // the path that it would remove is no longer its own
			current, said = next, ""
			c.log.Info("the control socket was deleted, and is bound again", "path", path)
		case err.Error() != said:
			said = err.Error()
			c.log.Error(err, "the control socket was deleted: crankctl cannot reach this crank")
		}
	}
}

// listenAgain also makes the runtime directory again, with the mode that it had.
func (c *crank) listenAgain(path string, mode fs.FileMode) (*server.Listener, error) {
	if filepath.Dir(path) == c.prefix {
		if err := rundir.Remake(c.prefix, mode); err != nil {
			return nil, err
		}
	}
	return server.Listen(c.ctl, "")
}
