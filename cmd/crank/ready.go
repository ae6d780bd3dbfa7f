package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/probe"
	"github.com/crankctl/crank/pkg/supervisor"
)

// readiness is what -ready means to the supervisor; an address is asked by its Prober.
func (c *crank) readiness() supervisor.Readiness {
	r := c.cfg.Readiness()
	return supervisor.Readiness{
		None: r.None, Alive: r.Alive, Exec: r.Exec,
		Interval: time.Duration(c.cfg.ReadyInterval), Timeout: time.Duration(c.cfg.ReadyTimeout),
	}
}

// findTarget reads the address of -ready, where it is one. The sockets of -bind are every generation's: that one of them
// answers says nothing of the candidate.
func (c *crank) findTarget() error {
	address := c.cfg.Readiness().Address
	if address == "" {
		return nil
	}
	target, err := probe.Parse(address)
	if err != nil {
		return fmt.Errorf("-ready (CRANK_READY): %w", err)
	}
	for _, s := range c.sockets.Sockets() {
		network, host, _ := strings.Cut(s.Bound(), "://")
		addr, err := netip.ParseAddrPort(host)
		if err == nil && strings.HasPrefix(network, "tcp") && target.Shares(addr) {
			return fmt.Errorf("-ready (CRANK_READY): %s is an address of -bind (CRANK_BIND), %s, on which every generation answers: "+
				"have the app listen on an address of its own for this, or use notify or exec:COMMAND", target, s.Bound())
		}
	}
	c.target = &target
	return nil
}
