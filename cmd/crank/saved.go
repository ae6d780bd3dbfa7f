package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/crankctl/crank/pkg/config"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/saved"
	"github.com/crankctl/crank/pkg/supervisor"
)

// first decides what runs first, by the command line and the saved command.
func (c *crank) first() (supervisor.Command, supervisor.Options, error) {
	record, err := c.load()
	if err != nil {
		return supervisor.Command{}, supervisor.Options{}, err
	}
	first, previous, why := saved.Choose(c.cfg.Command, record, c.hasSaved)
	o := supervisor.Options{Previous: previous}
	switch why {
	case saved.WhyReplaced:
		c.log.Info("starting the saved command, which crankctl run put in the place of this command line", "conf", c.conf)
		o.Fallback = &supervisor.Command{Argv: c.cfg.Command}
	case saved.WhyStale:
		c.log.V(c.quiet()).Info("the saved command belongs to another command line: starting this one", "conf", c.conf)
	case saved.WhySaved:
		c.log.Info("starting the saved command", "conf", c.conf)
	case saved.WhyNone:
		c.log.Info("waiting for a command, as in crankctl run -- /app", "ctl", c.ctl)
	}
	o.SetAside = func(cause string) { c.setAside(saved.Failed, cause) }
	if first.IsZero() && c.ctl == "" {
		return first, o, errors.New("there is nothing to run, and no control socket to say what: give a command, as in crank -- /app (see crank -help)")
	}
	return first, o, nil
}

// load reads the saved command, and sets hasSaved if there is one. An unusable file is logged and does not keep crank from
// starting, unless -conf names a file that crank did not write and must not overwrite.
func (c *crank) load() (saved.Record, error) {
	if c.conf == "" {
		return saved.Record{}, nil
	}
	record, err := saved.Load(c.conf)
	switch {
	case err == nil:
		c.hasSaved = true
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, saved.ErrForeign) && c.cfg.Explicit["conf"] != config.Default:
		return record, fmt.Errorf("-conf (CRANK_CONF): %w: choose another path or off, or remove it", err)
	case errors.Is(err, saved.ErrForeign):
		c.confError = fmt.Errorf("%w: choose another path with -conf (CRANK_CONF), or remove it and restart crank", err)
		logging.Warn(c.log, "running without a saved command", "conf", c.conf, "cause", c.confError.Error())
		c.conf = ""
	case errors.Is(err, saved.ErrCorrupt):
		c.setAside(saved.Corrupt, err.Error())
	default: // saved.ErrUnsafe: kept for inspection, out of the way of the next save
		c.setAside(saved.Unsafe, err.Error())
	}
	return record, nil
}

func (c *crank) setAside(reason, cause string) {
	kept, err := saved.SetAside(c.conf, reason)
	if err != nil {
		c.log.Error(err, "cannot set the saved command aside", "conf", c.conf, "cause", cause)
		return
	}
	c.log.Info("the saved command was set aside", "kept", kept, "cause", cause)
}

// saver writes what became current, with the command line that it stands for.
type saver struct {
	store *saved.Writer
	base  []string
	lazy  bool // write nothing as long as it would only repeat the command line
}

func (s saver) Save(command supervisor.Command, previous *supervisor.Command) <-chan error {
	if s.lazy && previous == nil && command.Equal(supervisor.Command{Argv: s.base}) {
		return nil
	}
	return s.store.Save(saved.Record{Base: s.base, Command: command, Previous: previous})
}
