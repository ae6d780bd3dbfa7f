package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

// readyTimeout is for a probe that does not say -timeout.
const readyTimeout = time.Second

var cmdReady = &command{
	name:    "ready",
	args:    "[URL]",
	summary: "exit 0 if ready, 1 if not: for probes",
	details: "It gives up after a second unless -timeout says otherwise, and exits 1 also when crank is not reached.\n\n" +
		"With a URL it asks that in the place of crank: http://HOST:PORT/PATH must answer 2xx, tcp://HOST:PORT must accept a connection.",
	examples: []string{
		"crankctl ready",
		"HEALTHCHECK CMD [\"crankctl\", \"ready\"]",
		"crankctl ready -timeout 5 http://web:8080/healthz",
	},
	setup: func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			ready, err := s.ready(args)
			if err != nil {
				return err
			}
			done, err := s.json(ready)
			switch {
			case err != nil:
				return err
			case !ready.Ready:
				return fmt.Errorf("not ready: %s", ready.Reason)
			case !done:
				s.say("ready")
			}
			return nil
		}
	},
}

// ready asks crank, or the URL that was given.
func (s *session) ready(args []string) (control.Ready, error) {
	if len(args) == 0 {
		return s.client.Ready(s.ctx)
	}
	if len(args) > 1 {
		return control.Ready{}, usagef("want one URL, have %d", len(args))
	}
	var why error
	target, err := url.Parse(args[0])
	switch {
	case err == nil && target.Scheme == "http" && target.Host != "":
		why = getOK(s.ctx, args[0])
	case err == nil && target.Scheme == "tcp" && target.Port() != "":
		why = connect(s.ctx, target.Host)
	default:
		return control.Ready{}, usagef("URL %q: want http://HOST:PORT/PATH or tcp://HOST:PORT", args[0])
	}
	answer := control.Ready{Ready: why == nil}
	if why != nil {
		answer.Reason = why.Error()
	}
	return answer, nil
}

func connect(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// getOK takes no redirect for an answer: what it leads to is not what was asked.
func getOK(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // and no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", address, answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
