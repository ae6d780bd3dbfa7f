// Package saved keeps the command that last became current on disk, so that it outlives crank.
//
// The file is JSON, written by [Writer] and read by [Load]:
//
//	{
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
// Fields that version 1 does not know are ignored. A file without a version is one of 2014's
// crank, or written by hand: "command" may then be a string with "args" beside it, and the times
// are "start_timeout" and "stop_timeout". A time that is a number counts nanoseconds.
package saved

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
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
	Unsafe  = "unsafe"  // somebody else may have written the file
)

var (
	// ErrUnsafe is what Load says of a file that somebody else may have written. Do not use it.
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
// The error matches fs.ErrNotExist where there is no file, [ErrUnsafe] where it is a symlink or
// not a regular file, belongs to neither the effective user nor root, has a second name (a hard link) or can be written by group or
// others, and [ErrCorrupt] where its content is not understood. Load never changes anything, and
// does not wait for the other end of a fifo.
func Load(path string) (Record, error) {
	data, err := read(path)
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the saved command: %w", err)
	}
	rec, err := parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the saved command %s: %w", path, err)
	}
	return rec, nil
}

// SetAside renames the file to path.reason, in the place of an older one, and returns that name.
func SetAside(path, reason string) (string, error) {
	aside := path + "." + reason
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("cannot set the saved command aside: %w", err)
	}
	return aside, nil
}

func read(path string) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

// open returns a file that nobody else can have written.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ELOOP): // open(2): a symlink, with O_NOFOLLOW
		return nil, fmt.Errorf("%w: %s is a symlink", ErrUnsafe, path)
	case errors.Is(err, syscall.ENXIO): // open(2): a unix socket
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	case err != nil:
		return nil, err
	}
	if err := checkSafe(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readAll(f *os.File) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		err = fmt.Errorf("%w: %s is larger than %d bytes", ErrCorrupt, f.Name(), MaxSize)
	}
	return data, err
}

// checkSafe asks the open file, not its name, so that nobody can exchange it in between. The group
// bits also stand for the mask of an ACL (acl(5)).
func checkSafe(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	stat := fi.Sys().(*syscall.Stat_t)
	owner := int(stat.Uid)
	switch {
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, f.Name())
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to uid %d, not to %d or 0: chown or remove it", ErrUnsafe, f.Name(), owner, os.Geteuid())
	case stat.Nlink > 1: // link(2) needs no right to the file, where fs.protected_hardlinks is 0
		return fmt.Errorf("%w: %s has another name, and may be a link to a file that was written for something else: remove it", ErrUnsafe, f.Name())
	case fi.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s can be written by group or others (%v): chmod or remove it", ErrUnsafe, f.Name(), fi.Mode().Perm())
	}
	return nil
}

// file is the content on disk; version 0 is a file without one.
type file struct {
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
	f := file{Version: Version, Base: rec.Base, entry: toEntry(rec.Command)}
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
