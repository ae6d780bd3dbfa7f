package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crankctl/crank/pkg/linux"
)

// Clients find a unix socket by its path, and anybody who may write to its directory can remove that: a candidate, an app that
// cleans up when it ends (Python's asyncio since 3.13), an administrator, a tmp cleaner. So the socket has a second name from
// the start, a hard link, from which the path is restored.

// sparePath is the hidden name next to path. It is always the same, so that the next start finds the one of a crank that was killed.
func sparePath(path string) string {
	dir, name := filepath.Split(path)
	return dir + "." + name + ".crank"
}

// keepSpare makes the second name. It precedes a change of the owner: a socket of another user may not be linked
// (fs.protected_hardlinks, proc_sys_fs(5)).
func (s *Socket) keepSpare() error {
	if !s.shared {
		return nil
	}
	spare := sparePath(s.address.Path)
	err := os.Link(s.address.Path, spare)
	if errors.Is(err, fs.ErrExist) {
		if err = removeStaleSpare(spare); err == nil {
			err = os.Link(s.address.Path, spare)
		}
	}
	if err != nil {
		return err
	}
	if !s.isOwn(spare) {
		return fmt.Errorf("%s was replaced by another file", spare)
	}
	s.spare = spare
	return nil
}

// removeStaleSpare removes the leftover of a crank that was killed, but not a live socket, nor any other file.
func removeStaleSpare(spare string) error {
	info, err := os.Lstat(spare)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", spare)
	}
	address := spare
	if len(spare) > maxPath {
		dir, err := os.Open(filepath.Dir(spare))
		if err != nil {
			return err
		}
		defer dir.Close()
		address = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(spare))
		if _, err := os.Lstat(address); err != nil {
			return err
		}
	}
	if err := checkStale(address); err != nil {
		return fmt.Errorf("%s: %w", spare, err)
	}
	return os.Remove(spare)
}

// isOwn reports whether a name is this socket's.
func (s *Socket) isOwn(path string) bool {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(now, s.file)
}

var (
	errTaken   = errors.New("another file is there: remove it")
	errNoSpare = errors.New("cannot restore it: no second name is left: restart crank")
)

// The file system of a path may not answer, and the loop must not wait for it. So a goroutine visits the path, one visit at a time, and its
// caller waits for at most pathPatience. The result of a longer visit is dropped.

const (
	pathPatience = 200 * time.Millisecond
	pathSlow     = time.Second     // a visit that takes longer is not waited for again
	pathDead     = 5 * time.Second // a visit that takes longer is reported
)

// seen is the result of a visit.
type seen struct {
	what string
	err  error
	file fs.FileInfo // of the socket; nil: it has no path
}

// visit is an operation on a path.
type visit struct {
	began time.Time
	over  chan seen // 1-buffered
}

var errSilent = errors.New("its file system does not answer")

// patiently starts a visit once the previous one is over, and returns its result. over is false where either takes too long. mu is held.
func (s *Socket) patiently(do func() seen) (found seen, over bool) {
	patience := time.NewTimer(pathPatience)
	defer patience.Stop()
	if s.visit != nil && time.Since(s.visit.began) > pathSlow {
		patience.Reset(0)
	}
	if s.visit != nil {
		if _, over := s.await(patience.C); !over {
			return seen{}, false
		}
	}
	v := &visit{time.Now(), make(chan seen, 1)}
	s.visit = v
	go func() { v.over <- do() }() // ends when the file system answers
	return s.await(patience.C)
}

// await waits for the end of the visit.
func (s *Socket) await(patience <-chan time.Time) (found seen, over bool) {
	select {
	case found = <-s.visit.over:
	case <-patience:
		select {
		case found = <-s.visit.over:
		default:
			return seen{}, false
		}
	}
	s.visit = nil
	return found, true
}

// keepPath restores the path, and the second name. It leaves other files alone.
func (s *Socket) keepPath() (what string, err error) {
	if s.file == nil {
		return "", nil
	}
	found, over := s.patiently(s.lookAtPath)
	if !over && time.Since(s.visit.began) > pathDead {
		return "its path cannot be reached", errSilent
	}
	return found.what, found.err
}

// lookAtPath is the visit of keepPath. Only visits use spare.
func (s *Socket) lookAtPath() (found seen) {
	found.what, found.err = s.mendPath()
	if now, err := os.Lstat(s.address.Path); err == nil && os.SameFile(now, s.file) {
		found.file = now
	}
	return found
}

func (s *Socket) mendPath() (what string, err error) {
	now, err := os.Lstat(s.address.Path)
	switch {
	case err == nil && os.SameFile(now, s.file):
		s.renewSpare()
		return "", nil
	case err == nil:
		return "its path was taken", errTaken
	case errors.Is(err, fs.ErrNotExist):
		return "its path was removed", s.restorePath()
	}
	return "its path cannot be reached", err
}

// restorePath links the path to the second name or, where that is refused, renames the second name, which works once.
func (s *Socket) restorePath() error {
	if s.spare == "" || !s.isOwn(s.spare) {
		return errNoSpare
	}
	err := os.Link(s.spare, s.address.Path)
	if err != nil && !errors.Is(err, fs.ErrExist) && linux.RenameNew(s.spare, s.address.Path) == nil {
		s.spare, err = "", nil
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return errTaken // just now
	case err != nil:
		return err
	case !s.isOwn(s.address.Path):
		return errTaken
	}
	return nil
}

// renewSpare restores the second name.
func (s *Socket) renewSpare() {
	if s.spare == "" {
		return
	}
	if _, err := os.Lstat(s.spare); errors.Is(err, fs.ErrNotExist) {
		_ = os.Link(s.address.Path, s.spare) // or on the next visit
	}
}

// removeNames removes the path and the second name, if they are this socket's. It gives a silent file system one second.
func (s *Socket) removeNames() error {
	if s.file == nil {
		return nil
	}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if found, over := s.patiently(func() seen { return seen{err: errors.Join(s.unlink(), s.removeSpare())} }); over {
			return found.err
		}
	}
	return fmt.Errorf("cannot remove the path of %s: %w", s.address, errSilent)
}

// removeSpare removes the second name, if it is this socket's.
func (s *Socket) removeSpare() error {
	if s.spare == "" || !s.isOwn(s.spare) {
		return nil
	}
	if err := os.Remove(s.spare); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the second name of %s: %w", s.address, err)
	}
	return nil
}

// describePath describes how the file of a path has changed; empty: it has not.
func describePath(was, now fs.FileInfo) string {
	var all []string
	if was.Mode() != now.Mode() {
		all = append(all, fmt.Sprintf("mode %04o instead of %04o", now.Mode().Perm(), was.Mode().Perm()))
	}
	if ownerOf(was) != ownerOf(now) {
		all = append(all, fmt.Sprintf("owner %v instead of %v", ownerOf(now), ownerOf(was)))
	}
	return strings.Join(all, ", ")
}
