package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/crankctl/crank/pkg/control/server"
	"github.com/crankctl/crank/pkg/health"
	"github.com/crankctl/crank/pkg/launch"
	"github.com/crankctl/crank/pkg/metrics"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/supervisor"
)

// listenHTTP opens the socket of -http.
func (c *crank) listenHTTP() error {
	if c.cfg.HTTP == "off" {
		return nil
	}
	l, err := health.Listen(c.cfg.HTTP, c.log)
	if err != nil {
		return fmt.Errorf("-http (CRANK_HTTP): %w", err)
	}
	c.http = l
	c.log.Info("probes and metrics are served", "bound", l.Bound())
	return nil
}

// makeMetrics counts only for who can ask.
func (c *crank) makeMetrics() {
	if c.http == nil {
		return
	}
	o := metrics.Options{
		Status:         func() *supervisor.Status { return c.sup.Status() },
		MemoryHeadroom: launch.MemoryHeadroom, LogDropped: c.dropped,
		NotifyKeys: notify.Keys(), ControlVerbs: server.Verbs(), ControlResults: server.Results,
	}
	for _, s := range c.sockets.Sockets() {
		o.Listeners = append(o.Listeners, metrics.Listener{
			Name: s.Name(), Queue: s.Queue,
			Damage: func() (restored int64, broken bool) { return s.Restored(), len(s.Broken()) > 0 },
		})
	}
	c.metrics = metrics.New(o)
}

// serveHTTP answers probes and scrapes until stop is called.
func (c *crank) serveHTTP() (stop func()) {
	s := health.New(health.Options{Supervisor: c.sup, Metrics: c.metrics.Handler(), Log: c.log})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(c.http); !errors.Is(err, http.ErrServerClosed) {
			c.log.Error(err, "the socket of -http is gone: probes and scrapes fail")
		}
	}()
	return func() {
		if err := s.Close(); err != nil {
			c.log.V(1).Info("the socket of -http was closed with requests under way", "cause", err.Error())
		}
		<-ended
	}
}
