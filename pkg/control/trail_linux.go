package control

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may lead through (path_resolution(7)).
const maxLinks = 40

// trail lists the directories and links on the way to a socket, and last the socket.
type trail []step

type step struct {
	path string
	uid  int
	mode fs.FileMode
	last bool // a directory that holds the socket, or a link to it
}

// follow resolves a path by hand, as the kernel does: ".." after a link leads out of where that leads to.
func follow(path string) (trail, error) {
	if !filepath.IsAbs(path) {
		here, err := syscall.Getwd()
		if err != nil {
			return nil, os.NewSyscallError("getcwd", err)
		}
		path = here + "/" + path
	}
	var t trail
	for range maxLinks + 1 {
		target, err := t.walk(path)
		if target == "" || err != nil {
			return t, err
		}
		path = target
	}
	return nil, &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
}

// walk adds the components of path, down to the first link, and returns the path with that link
// resolved; "" if there is none.
func (t *trail) walk(path string) (target string, err error) {
	names := slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
	at := "/"
	for i := range len(names) + 1 {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return "", fmt.Errorf("%s has no owner", at)
		}
		*t = append(*t, step{at, int(stat.Uid), info.Mode(), i == len(names)-1})
		if info.Mode().Type() == fs.ModeSymlink {
			link, err := os.Readlink(at)
			if !filepath.IsAbs(link) {
				link = filepath.Dir(at) + "/" + link
			}
			return link + "/" + strings.Join(names[i:], "/"), err
		}
		if i < len(names) {
			at = filepath.Join(at, names[i]) // there is no link in at, so ".." is its parent
		}
	}
	return "", nil
}

// onlyChangedBy returns an error unless nobody but uid and root decides what is at the end: all on
// the way belongs to them, and others can write to none of the directories, or to sticky ones, where
// they cannot replace what is not theirs. To a last one they cannot write at all, since they could
// make what is missing there. The socket and its directory are uid's own.
func (t trail) onlyChangedBy(uid int) error {
	for i, s := range t {
		end := i >= len(t)-2
		if s.mode.IsDir() && s.mode.Perm()&0o022 != 0 && (s.last || s.mode&fs.ModeSticky == 0) {
			return fmt.Errorf("others can write to %s", s.path)
		}
		if s.uid != uid && (s.uid != 0 || end) {
			return fmt.Errorf("%s belongs to uid %d", s.path, s.uid)
		}
	}
	return nil
}

// foreignLink returns a symbolic link that none of these users, nor root, has made, and its owner.
//
// In a user namespace the links of the machine's root, such as /var/run, may have an owner without an
// id. They count as root's if all the directories from / to them are of such an owner too, and nobody
// else can write there.
func (t trail) foreignLink(uids ...int) (path string, uid int) {
	outside := false // all since / is of users without an id
	for _, s := range t {
		outside = (outside || s.path == "/") && anonymous(s.uid)
		if s.mode.Type() == fs.ModeSymlink {
			if s.uid != 0 && !outside && !slices.Contains(uids, s.uid) {
				return s.path, s.uid
			}
		} else if s.mode.Perm()&0o022 != 0 {
			outside = false
		}
	}
	return "", 0
}

// overflowUID is what the kernel shows, in a user namespace, of every user without an id there
// (user_namespaces(7), default of /proc/sys/kernel/overflowuid).
const overflowUID = 65534

// anonymous reports whether a uid stands for such users, of whom there can be many. Where the
// namespace has a user 65534 of its own, the two cannot be told apart, and it counts as that user.
func anonymous(uid int) bool {
	if uid != overflowUID {
		return false
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false // no /proc: not known
	}
	for line := range strings.Lines(string(users)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		first, _ := strconv.ParseUint(fields[0], 10, 32)
		count, _ := strconv.ParseUint(fields[2], 10, 33)
		if first <= overflowUID && overflowUID < first+count {
			return false
		}
	}
	return true
}
