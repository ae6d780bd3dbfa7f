package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/rundir"
)

// The search for the target instance. A control socket is NAME.ctl in a runtime directory.
//
// Any user can create a runtime directory in /dev/shm, and root finds control sockets there. So root's
// crankctl, like any other, prefers instances of its own user. An instance of another user is only
// queried: requests that change something, or carry variables, go there only if -ctl, -prefix or -name say
// so.

// candidates and others are variables for tests alone.
var candidates, others = rundir.Candidates, rundir.OfOthers

// dialTimeout is for finding out whether a socket is served.
const dialTimeout = time.Second

// nameLetters are those of crank's own rule; with the wildcards of filepath.Match it is a pattern. A regular expression
// would be compiled at every start, also for a probe that needs none.
const nameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-*?[]^"

// instance is a control socket that a process of a user serves.
type instance struct {
	path string
	uid  int
}

func (i instance) own() bool { return i.uid == os.Geteuid() }

func (i instance) String() string {
	if i.own() {
		return i.path
	}
	return fmt.Sprintf("%s (uid %d)", i.path, i.uid)
}

// targets returns the addresses of the instances that a verb is for, at least one.
func (s *session) targets(c *command) ([]string, error) {
	g := s.global
	switch {
	case g.ctl == "off":
		return nil, fmt.Errorf("%w: its control socket is off (-ctl or CRANK_CTL)", control.ErrUnreachable)
	case g.ctl != "":
		return []string{g.ctl}, nil
	case len(g.name) > 64 || strings.Trim(g.name, nameLetters) != "":
		return nil, usagef("-name %q: a name consists of letters, digits, _ . and -, 64 at most", g.name)
	}
	if _, err := filepath.Match(g.name, ""); err != nil {
		return nil, usagef("-name %q is not a valid pattern", g.name)
	}
	found, err := s.find(c)
	if err != nil {
		return nil, err
	}
	if len(found) > 1 && !g.pattern() {
		return nil, usagef("several instances found: %s: choose one with -name, -prefix or -ctl", list(found))
	}
	var paths []string
	for _, i := range found {
		paths = append(paths, i.path)
	}
	return paths, nil
}

// pattern reports whether -name stands for all that match, exact whether it names one.
func (g *globals) pattern() bool { return strings.ContainsAny(g.name, "*?[") }
func (g *globals) exact() bool   { return g.name != "" && !g.pattern() }

// find returns the possible targets by name, at least one: in -prefix all of them,
// elsewhere those of this user or, if there are none, of others.
func (s *session) find(c *command) ([]instance, error) {
	g := s.global
	if g.prefix != "" {
		own, foreign, reasons, err := s.search([]string{g.prefix})
		if err == nil && len(own)+len(foreign) == 0 {
			err = s.notFound(reasons)
		}
		return byName(append(own, foreign...)), err
	}
	own, foreign, reasons, err := s.search(candidates())
	if err != nil || len(own) > 0 {
		return own, err
	}
	_, more, also, err := s.search(others())
	foreign = append(foreign, more...)
	switch {
	case err != nil:
		return nil, err
	case len(foreign) == 0:
		return nil, s.notFound(append(reasons, also...))
	case c.changes && !g.exact():
		return nil, fmt.Errorf("%w: only instances of other users were found: %s: to %s one of them, name it with -ctl, -prefix or -name, as in crankctl -ctl %s %s",
			control.ErrUnreachable, list(foreign), c.name, foreign[0].path, c.name)
	}
	return byName(foreign), nil
}

// search returns the instances in directories that -name matches (empty: all), of this user by name,
// of two with the same name the one in the earlier directory, and those of others. reasons say where
// it looked, and why what is there is not an instance.
func (s *session) search(dirs []string) (own, foreign []instance, reasons []string, err error) {
	known := map[string]bool{}
	for _, dir := range dirs {
		names, err := s.names(dir)
		if err != nil || !s.global.exact() {
			reasons = append(reasons, describe(dir, err))
		}
		for _, name := range names {
			if known[name] {
				continue
			}
			found, err := s.probe(filepath.Join(dir, name))
			switch {
			case s.ctx.Err() != nil:
				return nil, nil, nil, s.ctx.Err()
			case err != nil:
				reasons = append(reasons, describe(found.path, err))
			case found.own():
				own, known[name] = append(own, found), true
			default:
				foreign = append(foreign, found)
			}
		}
	}
	return byName(own), foreign, reasons, nil
}

// names returns the names of the control sockets in a directory that -name matches.
func (s *session) names(dir string) (names []string, err error) {
	name := s.global.name
	if s.global.exact() { // the directory need not be readable
		return []string{name + ".ctl"}, nil
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		base, isSocket := strings.CutSuffix(entry.Name(), ".ctl")
		matches, _ := filepath.Match(name, base) // checked
		if isSocket && (name == "" || matches) {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// byName sorts instances by their names.
func byName(all []instance) []instance {
	slices.SortStableFunc(all, func(a, b instance) int { return strings.Compare(filepath.Base(a.path), filepath.Base(b.path)) })
	return all
}

func list(all []instance) string {
	var texts []string
	for _, i := range all {
		texts = append(texts, i.String())
	}
	return strings.Join(texts, ", ")
}

// probe determines who serves a socket, and returns an error if no permitted user does. One that is
// suspended or busy does not answer in time, but counts: a request to it would wait.
func (s *session) probe(path string) (instance, error) {
	found := instance{path: path}
	client, err := control.NewClient(path, "")
	if err != nil {
		return found, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	found.uid, err = client.Server(ctx)
	if found.uid >= 0 && errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return found, err
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
	case err == nil, errors.Is(err, os.ErrNotExist):
		return path
	case errors.As(err, &callErr):
		return fmt.Sprintf("%s (%v)", path, callErr.Err)
	case errors.As(err, &pathErr):
		return fmt.Sprintf("%s (%v)", path, pathErr.Err)
	}
	return fmt.Sprintf("%s (%v)", path, err)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
