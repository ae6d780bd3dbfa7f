package sockets

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// Snapshot is the state of a Set's sockets that belongs to the app: flags, options, the filter, and the mode and owner of a path.
type Snapshot struct{ states []state }

// state is a socket's part of a Snapshot.
type state struct {
	flags    linux.Flags
	flagsErr error
	options  [][]byte // in the order of linux.SharedOptions; nil: not readable, or not an option of this socket
	filter   []byte
	filtered error       // why the filter cannot be read
	file     fs.FileInfo // of the path; nil: there is none
}

// Snapshot reads the state of all sockets. It does not block.
func (set *Set) Snapshot() *Snapshot {
	snapshot := &Snapshot{states: make([]state, len(set.sockets))}
	for i, s := range set.sockets {
		s.mu.Lock()
		if s.fd >= 0 {
			snapshot.states[i] = s.state()
		}
		s.mu.Unlock()
	}
	return snapshot
}

// state reads the socket's part of a Snapshot. mu is held.
func (s *Socket) state() state {
	st := state{options: make([][]byte, len(linux.SharedOptions))}
	st.flags, st.flagsErr = linux.ReadFlags(s.fd)
	for i, o := range linux.SharedOptions {
		st.options[i] = s.read(o)
	}
	st.filter, st.filtered = linux.Filter(s.fd)
	if s.file != nil {
		found, _ := s.patiently(s.lookAtPath)
		st.file = found.file
	}
	return st
}

// read returns nil for an option that cannot be read.
func (s *Socket) read(o linux.SharedOption) []byte {
	if o.Undo == linux.Unseen || !o.Has(s.domain, s.protocol) {
		return nil
	}
	value, err := o.Value(s.fd)
	if err != nil {
		return nil
	}
	return value
}

// PutBack does what Tend does, then undoes every change since the snapshot, and returns the changes. It does not block. Broken
// includes what could not be undone until it has its old value.
func (set *Set) PutBack(snapshot *Snapshot) (found []Damage) {
	for i, s := range set.sockets {
		found = append(found, s.putBack(snapshot.states[i])...)
	}
	return found
}

func (s *Socket) putBack(was state) (found []Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || was.options == nil {
		return nil
	}
	violated := s.keep() // first: a path that was removed has no mode
	for _, p := range s.properties(was) {
		d, changed := s.undo(p)
		if !changed {
			continue
		}
		found = slices.DeleteFunc(found, func(earlier Damage) bool { return earlier.property == p.name })
		found = append(found, d)
	}
	s.count(found)
	return slices.Concat(violated, found)
}

// property is one part of a state that can be compared and put back.
type property struct {
	name string
	// differs describes how it differs from the snapshot; empty: it does not.
	differs func() string
	putBack func() error
	settled bool // a successful putBack has restored it, whatever differs says then
}

// properties are those of a state. Options come twice: putting one back may change another, as with SO_TIMESTAMP and SO_TIMESTAMP_NEW.
func (s *Socket) properties(was state) (all []property) {
	if was.flagsErr == nil {
		all = append(all, s.flagsProperty(was.flags))
	}
	var options []property
	for i, o := range linux.SharedOptions {
		if was.options[i] != nil {
			options = append(options, s.optionProperty(o, was.options[i]))
		}
	}
	all = slices.Concat(all, options, options)
	if was.filtered == nil {
		all = append(all, s.filterProperty(was.filter))
	}
	if was.file != nil {
		all = append(all, s.pathProperty(was.file))
	}
	return all
}

func (s *Socket) flagsProperty(was linux.Flags) property {
	return property{
		name: "flags",
		differs: func() string {
			now, err := linux.ReadFlags(s.fd)
			if err != nil {
				return fmt.Sprintf("its flags cannot be read: %v", err)
			}
			if now == was {
				return ""
			}
			return fmt.Sprintf("its flags were changed (F_SETFL, F_SETOWN or F_SETSIG of fcntl(2): %#o instead of %#o)", now.Status, was.Status)
		},
		putBack: func() error { return linux.SetFlags(s.fd, was) },
	}
}

func (s *Socket) optionProperty(o linux.SharedOption, was []byte) property {
	return property{
		name: o.Name(),
		differs: func() string {
			now := s.read(o)
			if now == nil || o.Same(was, now) {
				return ""
			}
			return fmt.Sprintf("%s was changed (%x instead of %x)", o.Name(), now, was)
		},
		putBack: func() error { return o.PutBack(s.fd, was) },
		settled: o.Settles(was),
	}
}

func (s *Socket) filterProperty(was []byte) property {
	return property{
		name: "filter",
		differs: func() string {
			now, err := linux.Filter(s.fd)
			if err == nil && bytes.Equal(now, was) || err != nil && !errors.Is(err, syscall.EACCES) {
				return "" // EACCES: it is an eBPF filter
			}
			return "a filter was attached or detached (SO_ATTACH_FILTER of socket(7))"
		},
		putBack: func() error { return linux.SetFilter(s.fd, was) },
	}
}

func (s *Socket) pathProperty(was fs.FileInfo) property {
	return property{
		name: "path",
		differs: func() string {
			found, _ := s.patiently(s.lookAtPath)
			if found.file == nil {
				return "" // keepPath reports it
			}
			if different := describePath(was, found.file); different != "" {
				return "its path was changed: " + different
			}
			return ""
		},
		putBack: func() error {
			owner := ownerOf(was)
			found, over := s.patiently(func() seen {
				return seen{err: setOwner(s.address.Path, owner.uid, owner.gid, was.Mode().Perm())}
			})
			if !over {
				return errSilent
			}
			return found.err
		},
	}
}

// owner is the owner of a file.
type owner struct{ uid, gid int }

func (o owner) String() string { return fmt.Sprintf("%d:%d", o.uid, o.gid) }

func ownerOf(info fs.FileInfo) owner {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{-1, -1}
	}
	return owner{int(stat.Uid), int(stat.Gid)}
}

var errKept = errors.New("the kernel keeps it: restart crank")

// undo puts a property back, and remembers it where that fails.
func (s *Socket) undo(p property) (d Damage, changed bool) {
	what := p.differs()
	if what == "" {
		return d, false
	}
	err := p.putBack()
	if err == nil && !p.settled && p.differs() != "" {
		err = errKept
	}
	d = Damage{Socket: s, What: what, Err: err, property: p.name}
	s.forget(p)
	if err != nil {
		s.lost = append(s.lost, lost{p, d})
	}
	return d, true
}

// lost is a property that could not be put back.
type lost struct {
	property
	damage Damage
}

func (s *Socket) forget(p property) {
	s.lost = slices.DeleteFunc(s.lost, func(l lost) bool { return l.name == p.name })
}

// stillLost returns the properties that could not be put back and still differ. It does not retry: the new value may be the current
// generation's by now.
func (s *Socket) stillLost() (found []Damage) {
	for _, l := range slices.Clone(s.lost) {
		if l.differs() == "" {
			s.forget(l.property)
		} else {
			found = append(found, l.damage)
		}
	}
	return found
}
