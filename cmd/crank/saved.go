package main

import (
	"errors"
	"io/fs"

	"github.com/crankctl/crank/pkg/saved"
	"github.com/crankctl/crank/pkg/supervisor"
)

// first decides what runs first, by the command line and the saved command.
func (c *crank) first() (supervisor.Command, supervisor.Options, error) {
	record, err := c.load()
	c.hasSaved = err == nil
	first, previous, why := saved.Choose(c.cfg.Command, record, err == nil)
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

// load reads the saved command; what cannot be used is said, and never keeps crank from starting.
func (c *crank) load() (saved.Record, error) {
	if c.conf == "" {
		return saved.Record{}, fs.ErrNotExist
	}
	record, err := saved.Load(c.conf)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, saved.ErrCorrupt):
		c.setAside(saved.Corrupt, err.Error())
	case errors.Is(err, saved.ErrUnsafe):
		// Kept for whoever wants to know, and out of the way of the next one that is saved.
		c.setAside(saved.Unsafe, err.Error())
	default:
		c.log.Error(err, "the saved command is not used", "conf", c.conf)
	}
	return record, err
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
