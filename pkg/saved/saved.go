// Package saved keeps the command that last became current on disk, so that it outlives crank.
//
// The file is JSON, written by [Writer] and read by [Load]:
//
//	{
//	  "crank": "saved command",            the mark: it comes first
//	  "version": 1,
//	  "base": ["/app", "--v1"],            the command line that crank was started with
//	  "command": ["/app", "--v2"],         what ran in its place
//	  "cwd": "/srv",                       optional, as are the next three
//	  "env": ["COLOUR=blue", "DEBUG-"],
//	  "start": "30s",
//	  "stop": "1m30s",
//	  "previous": {"command": [...]}       the last different good command, with the same fields
//	}
//
// Fields that version 1 does not know are ignored. A file without a mark is crank's own only if it is one of 2014's crank, with no other
// fields: "command", which may be a string with "args" beside it, "cwd", and the times "start_timeout" and "stop_timeout", in
// nanoseconds; or one of version 1, with its "base", from before there was a mark. Any other file is somebody else's, and is left alone.
package saved

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crankctl/crank/pkg/supervisor"
)

// Version is the newest version of the file that this package reads, and the one that it writes.
const Version = 1

// MaxSize is the size in bytes that the file may have.
const MaxSize = 1 << 20

// The reasons of [SetAside].
const (
	Failed  = "failed"  // the command was started first, and failed
	Corrupt = "corrupt" // the file could not be understood
	Unsafe  = "unsafe"  // somebody else may have changed the file
)

var (
	// ErrForeign is the error of Load for a file that crank did not write. It must not be renamed, removed or overwritten.
	ErrForeign = errors.New("not written by crank")
	// ErrUnsafe is the error of Load for a file of crank's own that somebody else may have changed. Do not use it. See [SetAside].
	ErrUnsafe = errors.New("unsafe file")
	// ErrCorrupt is what Load says of a file that it cannot understand. See [SetAside].
	ErrCorrupt = errors.New("not a saved command of this version")
)

// Record is what the file holds.
type Record struct {
	Base     []string            // the command line of crank that Command replaced; may be empty
	Command  supervisor.Command  // the command that last became current
	Previous *supervisor.Command // the last different good one, for rollback; may be nil
}

// Load reads the file at path.
//
// The error matches fs.ErrNotExist if there is no file, [ErrForeign] if it is not crank's own, [ErrUnsafe] if it is, but
// belongs to neither the effective user nor root, has a second name (a hard link) or can be written by group or others, and
// [ErrCorrupt] if its content is not understood. Load never changes anything, and does not wait for the other end of a fifo.
func Load(path string) (Record, error) {
	data, err := look(path)
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the saved command: %w", err)
	}
	rec, err := parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the saved command %s: %w", path, err)
	}
	return rec, nil
}

// SetAside renames the file to path.reason, instead of an older one, and returns that name. Either is left alone, and the error matches
// [ErrForeign], where it is not crank's own.
func SetAside(path, reason string) (string, error) {
	aside := path + "." + reason
	_, err := look(path)
	if err == nil || errors.Is(err, ErrUnsafe) {
		err = setAside(path, aside)
	}
	if err != nil {
		return "", fmt.Errorf("cannot set the saved command aside as %s: %w", aside, err)
	}
	return aside, nil
}

func setAside(path, aside string) error {
	if err := removeOwn(aside); err != nil {
		return err
	}
	if err := renameNew(path, aside); err != nil {
		return err
	}
	if _, err := look(aside); errors.Is(err, ErrForeign) { // it came to path just now
		return errors.Join(err, renameNew(aside, path))
	}
	return nil
}

// file is the content on disk; version 0 is a file without one.
type file struct {
	Mark    string   `json:"crank"` // first
	Version int      `json:"version"`
	Base    []string `json:"base,omitempty"`
	entry
	Previous *entry `json:"previous,omitempty"`
}

// entry is a command on disk.
type entry struct {
	Command words    `json:"command"`
	Dir     string   `json:"cwd,omitempty"`
	Env     []string `json:"env,omitempty"`
	Start   duration `json:"start,omitzero"`
	Stop    duration `json:"stop,omitzero"`

	// Of version 0 alone.
	Args         []string `json:"args,omitempty"`
	StartTimeout duration `json:"start_timeout,omitzero"`
	StopTimeout  duration `json:"stop_timeout,omitzero"`
}

// words is an argument vector; 2014's first files have a string.
type words []string

func (w *words) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*w = make(words, 1)
		return json.Unmarshal(data, &(*w)[0])
	}
	return json.Unmarshal(data, (*[]string)(w))
}

// duration is text as time.ParseDuration reads it, or a number of nanoseconds.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		parsed, err := time.ParseDuration(text)
		*d = duration(parsed)
		return err
	}
	return json.Unmarshal(data, (*int64)(d))
}

func parse(data []byte) (Record, error) {
	var f file
	if len(data) > MaxSize {
		return Record{}, fmt.Errorf("%w: it is larger than %d bytes", ErrCorrupt, MaxSize)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if f.Version < 0 || f.Version > Version {
		return Record{}, fmt.Errorf("%w: version %d, this crank knows up to %d", ErrCorrupt, f.Version, Version)
	}
	rec := Record{Base: f.Base, Command: f.toCommand(f.Version)}
	if f.Previous != nil {
		previous := f.Previous.toCommand(f.Version)
		rec.Previous = &previous
	}
	if err := rec.validate(); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return rec, nil
}

func (e entry) toCommand(version int) supervisor.Command {
	c := supervisor.Command{
		Argv:  e.Command,
		Dir:   e.Dir,
		Env:   e.Env,
		Start: time.Duration(e.Start),
		Stop:  time.Duration(e.Stop),
	}
	if version > 0 {
		return c
	}
	c.Argv = slices.Concat(c.Argv, e.Args)
	if c.Start == 0 {
		c.Start = time.Duration(e.StartTimeout)
	}
	if c.Stop == 0 {
		c.Stop = time.Duration(e.StopTimeout)
	}
	return c
}

func toEntry(c supervisor.Command) entry {
	return entry{Command: c.Argv, Dir: c.Dir, Env: c.Env, Start: duration(c.Start), Stop: duration(c.Stop)}
}

// encode refuses what parse would not give back.
func encode(rec Record) ([]byte, error) {
	if err := rec.validate(); err != nil {
		return nil, err
	}
	f := file{Mark: mark, Version: Version, Base: rec.Base, entry: toEntry(rec.Command)}
	if rec.Previous != nil {
		previous := toEntry(*rec.Previous)
		f.Previous = &previous
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(f); err != nil {
		return nil, err
	}
	if buf.Len() > MaxSize {
		return nil, fmt.Errorf("it takes %d bytes, more than %d", buf.Len(), MaxSize)
	}
	return buf.Bytes(), nil
}

func (r Record) validate() error {
	if err := checkTexts("base", r.Base...); err != nil {
		return err
	}
	if err := checkCommand(r.Command); err != nil {
		return err
	}
	if r.Previous == nil {
		return nil
	}
	if err := checkCommand(*r.Previous); err != nil {
		return fmt.Errorf("previous: %w", err)
	}
	return nil
}

func checkCommand(c supervisor.Command) error {
	switch {
	case len(c.Argv) == 0 || c.Argv[0] == "":
		return errors.New("no command")
	case c.Start < 0 || c.Stop < 0:
		return errors.New("a time is negative")
	}
	if i := slices.IndexFunc(c.Env, supervisor.NoEnvChange); i >= 0 {
		return fmt.Errorf("env: number %d is neither K=V nor K-", i+1)
	}
	return cmp.Or(checkTexts("command", c.Argv...), checkTexts("env", c.Env...), checkTexts("cwd", c.Dir))
}

// checkTexts refuses what execve cannot take, and what JSON would not give back as it was. It names the place alone: the text
// may be a secret, and the error goes to the log.
func checkTexts(field string, texts ...string) error {
	for i, s := range texts {
		switch {
		case strings.ContainsRune(s, 0):
			return fmt.Errorf("%s: number %d contains a NUL", field, i+1)
		case !utf8.ValidString(s):
			return fmt.Errorf("%s: number %d is not UTF-8, which JSON cannot hold", field, i+1)
		}
	}
	return nil
}
