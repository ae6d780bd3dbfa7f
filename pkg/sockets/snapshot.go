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

// Snapshot is what belongs to the app of each socket of a Set, at one moment: flags, options, the filter, and the mode and owner of a path.
type Snapshot struct{ states []state }

// state is a socket's part of a Snapshot.
type state struct {
	flags    linux.Flags
	flagsErr error
	options  [][]byte // as linux.SharedOptions; nil: it cannot be read, or the socket has none
	filter   []byte
	filtered error       // why the filter cannot be read
	file     fs.FileInfo // of the path; nil: it has none
}

// Snapshot reads it all. It does not block.
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

// state reads what a Snapshot has of the socket. mu is held.
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

// PutBack undoes what has changed since the snapshot, and returns what that was. It does not block. What cannot be undone is among Broken
// until it is as it was.
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
	for _, o := range s.own(was) {
		d, changed := s.undo(o)
		if !changed {
			continue
		}
		found = slices.DeleteFunc(found, func(earlier Damage) bool { return earlier.what == o.name })
		found = append(found, d)
	}
	s.count(found)
	return found
}

// own is something of the app's own that can be compared and put back.
type own struct {
	name string
	// differs says what is different from the snapshot; empty: nothing.
	differs func() string
	putBack func() error
	settled bool // it is as it was once putBack has succeeded, whatever it looks like then
}

// own lists what there is of a snapshot. Options come twice: to put one back may change another, as SO_TIMESTAMP and SO_TIMESTAMP_NEW do.
func (s *Socket) own(was state) (all []own) {
	if was.flagsErr == nil {
		all = append(all, s.ownFlags(was.flags))
	}
	var options []own
	for i, o := range linux.SharedOptions {
		if was.options[i] != nil {
			options = append(options, s.ownOption(o, was.options[i]))
		}
	}
	all = slices.Concat(all, options, options)
	if was.filtered == nil {
		all = append(all, s.ownFilter(was.filter))
	}
	if was.file != nil {
		all = append(all, s.ownPath(was.file))
	}
	return all
}

func (s *Socket) ownFlags(was linux.Flags) own {
	return own{"flags",
		func() string {
			now, err := linux.ReadFlags(s.fd)
			if err != nil {
				return fmt.Sprintf("its flags cannot be read: %v", err)
			}
			if now == was {
				return ""
			}
			return fmt.Sprintf("its flags were changed (F_SETFL, F_SETOWN or F_SETSIG of fcntl(2): %#o instead of %#o)", now.Status, was.Status)
		},
		func() error { return linux.SetFlags(s.fd, was) },
		false,
	}
}

func (s *Socket) ownOption(o linux.SharedOption, was []byte) own {
	return own{o.Name(),
		func() string {
			now := s.read(o)
			if now == nil || o.Same(was, now) {
				return ""
			}
			return fmt.Sprintf("%s was changed (%x instead of %x)", o.Name(), now, was)
		},
		func() error { return o.PutBack(s.fd, was) },
		o.Settles(was),
	}
}

func (s *Socket) ownFilter(was []byte) own {
	return own{"filter",
		func() string {
			now, err := linux.Filter(s.fd)
			if err == nil && bytes.Equal(now, was) || err != nil && !errors.Is(err, syscall.EACCES) {
				return "" // EACCES is one of eBPF
			}
			return "a filter was attached or detached (SO_ATTACH_FILTER of socket(7))"
		},
		func() error { return linux.SetFilter(s.fd, was) },
		false,
	}
}

func (s *Socket) ownPath(was fs.FileInfo) own {
	return own{"path",
		func() string {
			found, _ := s.patiently(s.lookAtPath)
			if found.file == nil {
				return "" // that is for keepPath
			}
			if different := describePath(was, found.file); different != "" {
				return "its path was changed: " + different
			}
			return ""
		},
		func() error {
			owner := ownerOf(was)
			found, over := s.patiently(func() seen {
				return seen{err: setOwner(s.address.Path, owner.uid, owner.gid, was.Mode().Perm())}
			})
			if !over {
				return errSilent
			}
			return found.err
		},
		false,
	}
}

// owner is whom a file belongs to.
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

// undo puts one thing back, and remembers what it could not.
func (s *Socket) undo(o own) (d Damage, changed bool) {
	what := o.differs()
	if what == "" {
		return d, false
	}
	err := o.putBack()
	if err == nil && !o.settled && o.differs() != "" {
		err = errKept
	}
	d = Damage{Socket: s, What: what, Err: err, what: o.name}
	s.forget(o)
	if err != nil {
		s.lost = append(s.lost, lost{o, d})
	}
	return d, true
}

// lost is what could not be put back.
type lost struct {
	own
	damage Damage
}

func (s *Socket) forget(o own) {
	s.lost = slices.DeleteFunc(s.lost, func(l lost) bool { return l.name == o.name })
}

// stillLost returns what could not be put back and is not as it was yet. It is not tried again: it may be the app's own by now.
func (s *Socket) stillLost() (found []Damage) {
	for _, l := range slices.Clone(s.lost) {
		if l.differs() == "" {
			s.forget(l.own)
		} else {
			found = append(found, l.damage)
		}
	}
	return found
}
