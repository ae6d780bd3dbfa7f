package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Readiness is -ready, taken apart. One of its fields is set, or none: then it is notify.
type Readiness struct {
	None    bool
	Alive   time.Duration
	Exec    []string
	Address string // with http:// or tcp://
}

// Readiness returns what -ready says.
func (c Config) Readiness() (r Readiness) {
	var alive Seconds
	rest, isExec := strings.CutPrefix(c.Ready, execReady)
	switch {
	case c.Ready == "notify":
	case c.Ready == "none":
		r.None = true
	case isExec:
		r.Exec, _ = Words(rest) // Load has looked at it
	case alive.Set(c.Ready) == nil:
		r.Alive = time.Duration(alive)
	default:
		r.Address = c.Ready
	}
	return r
}

// CheckCommand returns the words of -check; nil: there is none.
func (c Config) CheckCommand() []string {
	if c.Check == "" {
		return nil
	}
	words, _ := Words(c.Check) // Load has looked at it
	return words
}

func command(value string) error {
	_, err := Words(value)
	return err
}

// execReady is what a -ready begins with that is a command.
const execReady = "exec:"

func readiness(value string) error {
	wanted := errors.New("want none, notify, a duration, exec:COMMAND, http://HOST:PORT/PATH or tcp://HOST:PORT")
	for _, scheme := range []string{execReady, "http://", "tcp://"} {
		rest, ok := strings.CutPrefix(value, scheme)
		switch {
		case ok && strings.TrimSpace(rest) == "":
			return fmt.Errorf("nothing after %s: %w", scheme, wanted)
		case ok && scheme == execReady:
			return command(rest)
		case ok:
			return nil // who asks there looks at the address
		}
	}
	var alive Seconds
	if value == "none" || value == "notify" || alive.Set(value) == nil && alive > 0 {
		return nil
	}
	return wanted
}
