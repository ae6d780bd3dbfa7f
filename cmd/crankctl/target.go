package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/rundir"
)

// The search for the crank that is meant. A control socket is NAME.ctl in a runtime directory.

// candidates is a variable for tests alone.
var candidates = rundir.Candidates

// dialTimeout is for finding out whether a socket is served.
const dialTimeout = time.Second

// nameLetters are those of crank's own rule; with the wildcards of filepath.Match it is a pattern. A regular expression
// would be compiled at every start, also for a probe that needs none.
const nameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-*?[]^"

// targets returns the addresses of the cranks that are meant, at least one.
func (s *session) targets() ([]string, error) {
	g := s.global
	switch {
	case g.ctl == "off":
		return nil, fmt.Errorf("%w: its control socket is off (-ctl or CRANK_CTL)", control.ErrUnreachable)
	case g.ctl != "":
		return []string{g.ctl}, nil
	}
	dirs := candidates()
	if g.prefix != "" {
		dirs = []string{g.prefix}
	}
	if len(g.name) > 64 || strings.Trim(g.name, nameLetters) != "" {
		return nil, usagef("-name %q: a name consists of letters, digits, _ . and -, 64 at most", g.name)
	}
	if g.name != "" && !strings.ContainsAny(g.name, "*?[") {
		return s.named(g.name, dirs)
	}
	found, err := s.search(g.name, dirs)
	if err != nil || g.name != "" || len(found) == 1 {
		return found, err
	}
	return nil, usagef("several cranks are here: %s: choose one by -name or -ctl", strings.Join(found, ", "))
}

// named returns the first socket of that name that is served.
func (s *session) named(name string, dirs []string) ([]string, error) {
	var reasons []string
	for _, dir := range dirs {
		path := filepath.Join(dir, name+".ctl")
		err := s.probe(path)
		if err == nil {
			return []string{path}, nil
		}
		reasons = append(reasons, describe(path, err))
	}
	return nil, s.notFound(reasons)
}

// search returns all sockets that are served and whose name matches the pattern (empty: all), by
// name; of two with the same name the one in the earlier directory.
func (s *session) search(pattern string, dirs []string) ([]string, error) {
	found, reasons := map[string]string{}, []string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			reasons = append(reasons, describe(dir, err))
			continue
		}
		reasons = append(reasons, dir)
		for _, entry := range entries {
			name, isSocket := strings.CutSuffix(entry.Name(), ".ctl")
			matches, err := filepath.Match(pattern, name)
			if err != nil {
				return nil, usagef("-name %q is not a valid pattern", pattern)
			}
			if !isSocket || found[name] != "" || pattern != "" && !matches {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			if err := s.probe(path); err != nil {
				reasons = append(reasons, describe(path, err))
				continue
			}
			found[name] = path
		}
	}
	if len(found) == 0 {
		return nil, s.notFound(reasons)
	}
	var paths []string
	for _, name := range sortedKeys(found) {
		paths = append(paths, found[name])
	}
	return paths, nil
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// probe connects, and returns why that is not possible.
func (s *session) probe(path string) error {
	client, err := control.NewClient(path, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	conn, err := client.Dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// notFound says where nobody was found; that -timeout has ended the search is no reason of its own.
func (s *session) notFound(reasons []string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: no control socket is served, looked at %s: is crank running? -name, -prefix or -ctl say where",
		control.ErrUnreachable, strings.Join(reasons, ", "))
}

// describe names a place and, in short, what is wrong with it.
func describe(path string, err error) string {
	var pathErr *os.PathError
	var callErr *os.SyscallError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return path
	case errors.As(err, &callErr):
		return fmt.Sprintf("%s (%v)", path, callErr.Err)
	case errors.As(err, &pathErr):
		return fmt.Sprintf("%s (%v)", path, pathErr.Err)
	}
	return fmt.Sprintf("%s (%v)", path, err)
}
