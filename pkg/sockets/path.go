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

// The path of a unix socket is how clients find it, and anybody who may write to its directory can remove it: a candidate, an app
// that cleans up when it ends (Python's asyncio does since 3.13), an administrator, a cleaner of temporary files. So the
// socket has a second name from the beginning, a hard link, from which the first one is made again.

// sparePath is the hidden name beside path. It is always the same, so that the next start finds what a crank that was killed has left.
func sparePath(path string) string {
	dir, name := filepath.Split(path)
	return dir + "." + name + ".crank"
}

// keepSpare makes the second name. It comes before a change of the owner: who does not own a socket may not link it
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
		return fmt.Errorf("%s: somebody has put another file in its place", spare)
	}
	s.spare = spare
	return nil
}

// removeStaleSpare removes what a crank has left that was killed; what is served, or is no socket, it leaves alone.
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
	errNoSpare = errors.New("there is no second name of it left to make it again: restart crank")
)

// The file system of a path may not answer, and the loop must not wait for it. So whatever is done to a path is done on a goroutine of its
// own, one thing at a time, for which pathPatience is waited: what takes longer is looked at the next time.

const (
	pathPatience = 200 * time.Millisecond
	pathSlow     = time.Second     // then what is still being done is not waited for any more
	pathDead     = 5 * time.Second // then it is said that it does not answer
)

// seen is what was found at a path.
type seen struct {
	what string
	err  error
	file fs.FileInfo // of the socket; nil: it is not there
}

// visit is something that is done to a path.
type visit struct {
	began time.Time
	over  chan seen // 1-buffered
}

var errSilent = errors.New("its file system does not answer")

// patiently does something to the path, after what is still being done, and returns what was found; over is false where one of both takes
// too long. mu is held.
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

// await waits for the end of what is being done.
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

// keepPath makes the path again where it is gone, and the second name where only that is. What somebody else has put there stays.
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

// lookAtPath is keepPath on a goroutine of its own; nobody else uses spare meanwhile.
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

// restorePath makes the path from the second name: by a link, or, where that is refused, once by a rename.
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
		return errTaken // in this moment
	case err != nil:
		return err
	case !s.isOwn(s.address.Path):
		return errTaken
	}
	return nil
}

// renewSpare makes the second name again where somebody has removed it.
func (s *Socket) renewSpare() {
	if s.spare == "" {
		return
	}
	if _, err := os.Lstat(s.spare); errors.Is(err, fs.ErrNotExist) {
		_ = os.Link(s.address.Path, s.spare) // else the next time
	}
}

// removeNames removes the path and the second name, if they are this socket's. It waits for a second where their file system does not answer.
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

// describePath says what is different about a path's file; empty: nothing.
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
