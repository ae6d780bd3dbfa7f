package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/test/root"
	"github.com/go-logr/logr"
)

// umask sets the umask of the whole process until the test ends.
func umask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// The kernel property that makes a mode hold from the first instant on: bind takes it from the
// unbound socket, and the umask can only take permissions away.
func TestBindTakesTheModeOfTheUnboundSocket(t *testing.T) {
	for mask, want := range map[int]fs.FileMode{0: 0o620, 0o022: 0o600, 0o777: 0} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			path := filepath.Join(shortDir(t), "s")
			umask(t, mask)
			fd, err := linux.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM)
			if err != nil {
				t.Fatal(err)
			}
			defer linux.Close(fd)
			if err := linux.SetSocketMode(fd, 0o620); err != nil {
				t.Fatal(err)
			}
			if err := linux.BindUnix(fd, path); err != nil {
				t.Fatal(err)
			}
			if got := modeOf(t, path); got != fs.ModeSocket|want {
				t.Errorf("the mode after bind is %s, want %s", got, want)
			}
		})
	}
}

func TestMode(t *testing.T) {
	tests := []struct {
		mask    int
		options string
		want    fs.FileMode
	}{
		{0o022, "", 0o755},
		{0o077, "", 0o700},
		{0, "?mode=0600", 0o600},
		{0o022, "?mode=0666", 0o666},
		{0o077, "?mode=0660", 0o660},
		{0o777, "?mode=0001", 0o001},
	}
	for _, network := range unixNetworks {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s umask %03o %s", network, test.mask, test.options), func(t *testing.T) {
				path := filepath.Join(shortDir(t), "s")
				umask(t, test.mask)
				bindAll(t, network+"://"+path+test.options)
				if got := modeOf(t, path); got != fs.ModeSocket|test.want {
					t.Errorf("the mode is %s, want %s", got, test.want)
				}
			})
		}
	}
}

func TestOwner(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid() // to these anybody may change
	if root.Full() {
		uid, gid = 12345, 23456
	}
	path := filepath.Join(shortDir(t), "s")
	umask(t, 0o077)
	bindAll(t, fmt.Sprintf("%s?user=%d&group=%d&mode=0660", path, uid, gid))
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	got := info.Sys().(*syscall.Stat_t)
	if int(got.Uid) != uid || int(got.Gid) != gid || info.Mode().Perm() != 0o660 {
		t.Errorf("it belongs to %d:%d, mode %s; want %d:%d, 0660", got.Uid, got.Gid, info.Mode(), uid, gid)
	}
}

func TestOwnerByName(t *testing.T) {
	for name, lookUp := range map[string]func(string) (int, error){"user": userID, "group": groupID} {
		if id, err := lookUp("root"); id != 0 || err != nil {
			t.Errorf("%s root is %d, %v", name, id, err)
		}
		if id, err := lookUp("2147483647"); id != 1<<31-1 || err != nil {
			t.Errorf("%s 2147483647 is %d, %v", name, id, err)
		}
		if id, err := lookUp(""); id != -1 || err != nil {
			t.Errorf("no %s is %d, %v", name, id, err)
		}
	}
}

// Whoever can write to the directory can put something else in the place of the socket before it has its owner: a link, or a
// file of crank's own user. That must not be given away.
func TestOwnerIsSetForASocketOnly(t *testing.T) {
	dir := shortDir(t)
	if err := os.WriteFile(dir+"/victim", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("victim", dir+"/link"), os.Link(dir+"/victim", dir+"/hard link")); err != nil {
		t.Fatal(err)
	}
	owner := 12345
	if !root.Full() {
		owner = -1
	}
	for _, name := range []string{"/link", "/victim", "/hard link"} {
		if err := setOwner(dir+name, owner, owner, 0o666); !errors.Is(err, syscall.ENOTSOCK) {
			t.Errorf("%s: %v", name, err)
		}
	}
	info, err := os.Stat(dir + "/victim")
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || int(stat.Uid) != os.Geteuid() {
		t.Errorf("it belongs to %d, mode %s", stat.Uid, info.Mode())
	}
}

// alive makes sockets that live processes have, in all states in which connect can meet them.
var alive = map[string]func(t *testing.T, path string){
	"stream": func(t *testing.T, path string) { bindAll(t, path) },
	"packet": func(t *testing.T, path string) { bindAll(t, "unixpacket://"+path) },
	"datagram": func(t *testing.T, path string) {
		bindAll(t, "unixgram://"+path)
	},
	"bound but not yet listening": func(t *testing.T, path string) {
		fd, err := linux.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { linux.Close(fd) })
		if err := linux.BindUnix(fd, path); err != nil {
			t.Fatal(err)
		}
	},
	"full backlog": func(t *testing.T, path string) {
		bindAll(t, path+"?backlog=1")
		for {
			fd, err := linux.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { linux.Close(fd) })
			if err = linux.ConnectUnix(fd, path); errors.Is(err, syscall.EAGAIN) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	},
	"datagram with a peer of its own": func(t *testing.T, path string) {
		bindAll(t, "unixgram://"+path+"-peer")
		connected := bindAll(t, "unixgram://"+path).Sockets()[0]
		if err := linux.ConnectUnix(connected.FD(), path+"-peer"); err != nil {
			t.Fatal(err)
		}
	},
}

func TestLiveSocketIsNotStolen(t *testing.T) {
	for name, serve := range alive {
		for _, network := range unixNetworks {
			t.Run(name+" by "+network, func(t *testing.T) {
				path := filepath.Join(shortDir(t), "s")
				serve(t, path)
				before, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				set, err := Bind(parseAll(t, network+"://"+path), logr.Discard())
				if err == nil {
					t.Fatal("it was stolen", set.Close())
				}
				if !errors.Is(err, errAlive) {
					t.Error(err)
				}
				if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
					t.Errorf("the path was touched: %v", err)
				}
			})
		}
	}
}

// The question whether a server is alive must not look like a client to it.
func TestProbeLeavesNoConnection(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	s := bindAll(t, path+"?nonblock").Sockets()[0]
	if err := checkStale(path); !errors.Is(err, errAlive) {
		t.Fatal(err)
	}
	if _, _, err := syscall.Accept(s.FD()); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("accept gives %v, want EAGAIN", err)
	}
}

// stale leaves a path whose socket is closed.
func stale(t *testing.T, path string, kind int) {
	t.Helper()
	fd, err := linux.Socket(syscall.AF_UNIX, kind)
	if err != nil {
		t.Fatal(err)
	}
	defer linux.Close(fd)
	if err := linux.BindUnix(fd, path); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsTakenOver(t *testing.T) {
	for _, kind := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET} {
		for _, network := range unixNetworks {
			t.Run(fmt.Sprintf("type %d by %s", kind, network), func(t *testing.T) {
				dir := shortDir(t)
				stale(t, dir+"/s", kind)
				bindAll(t, network+"://"+dir+"/s")
				if err := checkStale(dir + "/s"); !errors.Is(err, errAlive) {
					t.Errorf("afterwards: %v", err)
				}
				if names, _ := filepath.Glob(dir + "/*"); len(names) != 2 { // the path and its second name
					t.Errorf("there is litter: %v", names)
				}
			})
		}
	}
}

func TestStaleSocketIsTakenOverByOne(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	stale(t, path, syscall.SOCK_STREAM)
	var winners atomic.Int32
	var racers sync.WaitGroup
	for range 8 {
		racers.Go(func() {
			set, err := Bind([]Address{{Network: "unix", Path: path}}, logr.Discard())
			if err == nil {
				winners.Add(1)
				t.Cleanup(func() { set.Close() })
			} else if !errors.Is(err, errAlive) {
				t.Error(err)
			}
		})
	}
	racers.Wait()
	if winners.Load() != 1 {
		t.Errorf("%d took it over", winners.Load())
	}
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}

// Another user cannot keep crank from taking over a path: not by a lock on the directory, which takes only read permission, and
// not by a file with the name of crank's lock file.
func TestLockOfAnotherUser(t *testing.T) {
	root.Need(t)
	const stranger = 12345
	own := func(path string) error { return os.Lchown(path, stranger, -1) }
	lock := func(path string) error { // flock(2) goes by the open file: it excludes this process too
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		t.Cleanup(func() { file.Close() })
		return syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	write := func(path string) error { return os.WriteFile(path, nil, 0o600) }
	for name, prepare := range map[string]func(dir, file string) error{
		"a lock on the directory":    func(dir, _ string) error { return lock(dir) },
		"a lock on a file of theirs": func(_, file string) error { return errors.Join(write(file), own(file), lock(file)) },
		"a lock on an open file": func(_, file string) error {
			return errors.Join(write(file), os.Chmod(file, 0o644), lock(file))
		},
		"a lease": func(_, file string) error {
			err := errors.Join(write(file), own(file))
			held, openErr := os.OpenFile(file, os.O_RDWR, 0)
			if err = errors.Join(err, openErr); err != nil {
				return err
			}
			t.Cleanup(func() { held.Close() })
			if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, held.Fd(), syscall.F_SETLEASE, syscall.F_WRLCK); errno != 0 {
				return errno
			}
			return nil
		},
		"a FIFO":      func(_, file string) error { return errors.Join(syscall.Mkfifo(file, 0o600), own(file)) },
		"a directory": func(_, file string) error { return errors.Join(os.Mkdir(file, 0o700), own(file)) },
		"a link": func(dir, file string) error {
			return errors.Join(write(dir+"/victim"), lock(dir+"/victim"), os.Symlink(dir+"/victim", file), own(file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			path := dir + "/s"
			stale(t, path, syscall.SOCK_STREAM)
			if err := prepare(dir, lockPath(path)); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(dir)
			bindAll(t, "unix://"+path)
			after, _ := os.ReadDir(dir)
			if len(after) != len(before)+1 { // the second name of the socket
				t.Errorf("before %v, after %v", before, after)
			}
		})
	}
}

// A lock of crank's own user is waited for. Its file is removed, as is that of a killed process.
func TestLockOfTheSameUser(t *testing.T) {
	dir := shortDir(t)
	path := dir + "/s"
	stale(t, path, syscall.SOCK_STREAM)
	release, err := linux.LockFile(lockPath(path), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := linux.LockFile(lockPath(path), 0); !errors.Is(err, linux.ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	if _, err := Bind(parseAll(t, "unix://"+path), logr.Discard()); !errors.Is(err, linux.ErrLocked) {
		t.Errorf("bound while another process takes the path over: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(lockPath(path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bindAll(t, "unix://"+path)
	if _, err := os.Lstat(lockPath(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock file is left: %v", err)
	}
}

func TestPathThatIsNoSocketIsLeft(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("data"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link": func(path string) error {
			stale(t, path+"-stale", syscall.SOCK_STREAM)
			return os.Symlink(path+"-stale", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "s")
			if err := create(path); err != nil {
				t.Fatal(err)
			}
			before := modeOf(t, path)
			_, err := Bind(parseAll(t, path), logr.Discard())
			if err == nil || !strings.Contains(err.Error(), "exists and is not a socket") {
				t.Error(err)
			}
			if modeOf(t, path) != before {
				t.Error("the path was changed")
			}
		})
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(shortDir(t))
	set := bindAll(t, "./s")
	if got := set.Sockets()[0].Bound(); got != "unix://./s" {
		t.Errorf("bound to %s", got)
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat("s"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
