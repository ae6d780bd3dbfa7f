package main

import (
	"fmt"
	"os"

	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/sockets"
)

// bind creates the sockets, and takes over the inherited ones that -bind names.
func (c *crank) bind() error {
	passed := sockets.ReadPassed(os.Getenv)
	addresses, err := c.addresses(passed)
	if err == nil {
		c.sockets, err = sockets.Bind(addresses, c.log)
	}
	if err != nil {
		return fmt.Errorf("-bind (CRANK_BIND): %w", err)
	}
	if cause := passed.Problem(addresses); cause != "" {
		logging.Warn(c.log, "LISTEN_FDS or LISTEN_FDNAMES ignored", "cause", cause)
	}
	if unused := passed.Unused(addresses); unused != "" {
		logging.Warn(c.log, "inherited sockets not passed on", "sockets", unused, "cause", "no -bind names them: use -bind fd://N or fd://NAME")
	}
	return nil
}

func (c *crank) addresses(passed sockets.Passed) ([]sockets.Address, error) {
	var addresses []sockets.Address
	for _, uri := range c.cfg.Bind {
		a, err := sockets.ParseAddress(uri)
		if err != nil {
			return nil, err
		}
		if a.Options.NonBlock == sockets.Default && a.Network != "fd" && c.cfg.Preset.NonBlock {
			a.Options.NonBlock = sockets.On
		}
		addresses = append(addresses, a)
	}
	return passed.Resolve(addresses)
}
