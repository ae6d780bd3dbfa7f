package saved

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// A directory may hold files of others under the names that crank uses: h2o.conf next to an app named h2o. crank renames, removes and
// overwrites only files that look identifies as its own.

// markKey and mark are the first member of every file that crank writes. A file that starts with them is crank's own, even if damaged.
const (
	markKey = "crank"
	mark    = "saved command"
)

// members2014 are those of the files of 2014's crank, membersUnmarked those of crank's files before they had a mark.
var (
	members2014     = []string{"command", "args", "cwd", "start_timeout", "stop_timeout"}
	membersUnmarked = []string{"version", "base", "command", "cwd", "env", "start", "stop", "previous"}
)

// isOwn reports whether crank wrote this.
func isOwn(data []byte) bool { return isMarked(data) || isOld(data) }

func isMarked(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	for _, want := range []json.Token{json.Delim('{'), markKey, mark} {
		if got, err := d.Token(); err != nil || got != want {
			return false
		}
	}
	return true
}

// isOld reports whether this is a complete file without a mark. Other programs have files with a "command" too, so no other member may be
// there, and each has to have its type.
func isOld(data []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil {
		return false
	}
	allowed := membersUnmarked
	if string(members["version"]) != "1" || members["base"] == nil {
		allowed = members2014
		isText := bytes.HasPrefix(members["command"], []byte{'"'})
		if isText && members["args"] == nil || !isNumber(members["start_timeout"]) || !isNumber(members["stop_timeout"]) {
			return false
		}
	}
	for name := range members {
		if !slices.Contains(allowed, name) {
			return false
		}
	}
	_, err := parse(data)
	return err == nil
}

// isNumber also accepts a missing value.
func isNumber(value json.RawMessage) bool { return !bytes.HasPrefix(value, []byte{'"'}) }

// look reads the file at path. The error matches fs.ErrNotExist where there is none, [ErrForeign] where it is not crank's own or cannot be
// read, and [ErrUnsafe], with the content, where it is crank's own and somebody else may have changed it.
func look(path string) ([]byte, error) {
	info, err := os.Lstat(path) // opening a device may have side effects
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		return nil, foreign(err.Error())
	case info.Mode().Type() == fs.ModeSymlink:
		return nil, foreign(path + " is a symlink")
	case !info.Mode().IsRegular():
		return nil, foreign(path + " is not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // it may have been replaced by a link or a fifo
	if err != nil {
		return nil, foreign(err.Error())
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, foreign(path + " is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	switch {
	case err != nil:
		return nil, foreign(err.Error())
	case !isOwn(data):
		return nil, foreign(path + " does not start with crank's mark")
	}
	return data, checkSafe(path, info)
}

func foreign(why string) error { return fmt.Errorf("%w: %s", ErrForeign, why) }

// checkSafe checks the open file, not its name, so that nobody can replace it in between. The group bits also stand for the
// mask of an ACL (acl(5)).
func checkSafe(path string, info fs.FileInfo) error {
	stat := info.Sys().(*syscall.Stat_t)
	owner := int(stat.Uid)
	switch {
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to uid %d, not to %d or 0: chown or remove it", ErrUnsafe, path, owner, os.Geteuid())
	case stat.Nlink > 1: // link(2) needs no permission on the file if fs.protected_hardlinks is 0
		return fmt.Errorf("%w: %s has several hard links, and may belong to something else: remove it", ErrUnsafe, path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s can be written by group or others (%v): chmod or remove it", ErrUnsafe, path, info.Mode().Perm())
	}
	return nil
}

// put renames from, which is crank's own, to to: a new name, or that of a file of crank's own, which it replaces. A file of somebody else
// that appears there in between is put back.
func put(from, to string) error {
	err := renameNew(from, to)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := look(to); errors.Is(err, ErrForeign) {
		return err
	}
	if err := linux.RenameExchange(from, to); noSuchRename(err) {
		return os.Rename(from, to)
	} else if err != nil {
		return err
	}
	if _, err := look(from); errors.Is(err, ErrForeign) {
		return errors.Join(err, linux.RenameExchange(from, to))
	}
	return os.Remove(from)
}

// renameNew renames a file unless the new name exists.
func renameNew(from, to string) error {
	err := linux.RenameNew(from, to)
	if !noSuchRename(err) {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

// noSuchRename reports whether the kernel, a sandbox or a file system may not support the flags of renameat2(2): NFS returns EINVAL, some seccomp
// profiles EPERM.
func noSuchRename(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported)
}

// removeOwn removes a file of crank's own. A missing file is not an error.
func removeOwn(path string) error {
	_, err := look(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, ErrForeign):
		return err
	}
	return os.Remove(path)
}
