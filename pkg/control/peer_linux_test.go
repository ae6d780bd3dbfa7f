package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/attack"
	"github.com/crankctl/crank/test/root"
)

// app is the user id of an app that is not crank's own user.
const app = 65534

// patient returns a context that ends with the test, or when a wait has taken too long.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shortDir is a directory with a path short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T) (net.Listener, *Client) {
	t.Helper()
	path := filepath.Join(shortDir(t), "web.ctl")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

// write is WriteAs, or for this process's own user a plain write. The client may have closed the
// connection already.
func write(t *testing.T, uid int, conn *net.UnixConn, text string) {
	t.Helper()
	if uid == os.Geteuid() {
		_, _ = io.WriteString(conn, text)
	} else if err := attack.WriteAs(uid, conn, text); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// writeAsSetUID writes as a set-user-id program of root would that the app has started: its real user id is still the app's.
func writeAsSetUID(conn *net.UnixConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, app, 0, 0); errno == 0 {
			_, _ = io.WriteString(conn, attack.Nothing)
		}
	}()
	<-done
}

// The listening socket is always this user's own, as is one that crank bound for its app. What
// counts is who answers on it.
func TestWhoAnswers(t *testing.T) {
	own, half := os.Geteuid(), len(attack.Nothing)/2
	none := func(*net.UnixConn) {}
	for name, c := range map[string]struct {
		root          bool
		early, answer func(*net.UnixConn)
		says          string // "": accepted
	}{
		"own user": {false, none, func(c *net.UnixConn) { write(t, own, c, attack.Nothing) }, ""},
		"own user, in pieces": {false, none, func(c *net.UnixConn) {
			for _, b := range attack.Nothing {
				write(t, own, c, string(b))
			}
		}, ""},
		"own user, another process": {true, none, func(c *net.UnixConn) {
			if err := attack.WriteAs(own, c, attack.Nothing); err != nil {
				t.Error(err)
			}
		}, ""},
		"an app": {true, none, func(c *net.UnixConn) { write(t, app, c, attack.Nothing) }, "answered by uid 65534"},
		"an app, before the request": {true, func(c *net.UnixConn) { write(t, app, c, attack.Nothing) }, none,
			"before the request|answered by uid 65534"},
		"a set-user-id program of an app": {true, none, writeAsSetUID, "answered by uid 65534"},
		"crank, then an app": {true, none, func(c *net.UnixConn) {
			write(t, own, c, attack.Nothing[:half])
			write(t, app, c, attack.Nothing[half:])
		}, "answered by uid 0 and by uid 65534"},
		"an app, then crank": {true, none, func(c *net.UnixConn) {
			write(t, app, c, attack.Nothing[:half])
			write(t, own, c, attack.Nothing[half:])
		}, "answered by uid 65534"},
		"own user, more than asked for": {false, none, func(c *net.UnixConn) { write(t, own, c, attack.Nothing+attack.Nothing) }, "unexpected data"},
		"own user, not HTTP":            {false, none, func(c *net.UnixConn) { write(t, own, c, "hello\r\n\r\n") }, "no answer"},
		"own user, closes":              {false, none, func(c *net.UnixConn) { c.Close() }, "no answer"},
		"own user, endless": {false, none, func(c *net.UnixConn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, strings.Repeat("x", 1000))
			}
		}, "no answer|unexpected EOF|malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root {
				root.Need(t)
			}
			l, client := listen(t)
			var more atomic.Bool
			attack.Accept(t, l, func(conn *net.UnixConn) {
				c.early(conn)
				if err := attack.ReadRequest(conn); err != nil {
					return // it was refused by then
				}
				c.answer(conn)
				n, _ := conn.Read(make([]byte, 1))
				more.Store(n > 0)
			})
			conn, err := client.Dial(patient(t))
			if err == nil {
				conn.Close()
			}
			said := c.says == "" && err == nil
			for says := range strings.SplitSeq(c.says, "|") {
				said = said || says != "" && errors.Is(err, ErrUnreachable) && strings.Contains(fmt.Sprint(err), says)
			}
			if !said {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if more.Load() {
				t.Error("more than the greeting was sent")
			}
		})
	}
}

// What was written before SO_PASSCRED was set has no credentials. It must not count as that of user
// 65534, as which the kernel shows it.
func TestEarlyAnswer(t *testing.T) {
	l, client := listen(t)
	defer l.Close()
	conn, err := net.Dial("unix", client.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := io.WriteString(server, attack.Nothing); err != nil {
		t.Fatal(err)
	}
	if _, _, err := identify(patient(t), conn, client.address); err == nil || !strings.Contains(err.Error(), "before the request") {
		t.Errorf("error %v", err)
	}
}

// Each piece of an answer is checked, not only the greeting.
func TestAnswerOfAnother(t *testing.T) {
	root.Need(t)
	l, client := listen(t)
	attack.Accept(t, l, func(conn *net.UnixConn) {
		if attack.ReadRequest(conn) == nil {
			write(t, 0, conn, attack.Nothing)
		}
		if attack.ReadRequest(conn) == nil {
			write(t, app, conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"ready\": true}")
		}
	})
	if ready, err := client.Ready(patient(t)); err == nil || !strings.Contains(err.Error(), "answered by uid 0 and by uid 65534") {
		t.Errorf("ready %+v, error %v", ready, err)
	}
}

// Descriptors that come with an answer are not received.
func TestDescriptorsInAnAnswer(t *testing.T) {
	l, client := listen(t)
	attack.Accept(t, l, func(conn *net.UnixConn) {
		if attack.ReadRequest(conn) != nil {
			return
		}
		if _, _, err := conn.WriteMsgUnix([]byte(attack.Nothing), syscall.UnixRights(0, 1, 2), nil); err != nil {
			t.Error(err)
		}
	})
	conn, err := client.Dial(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close() // leak.Main counts the descriptors
}

// If nobody answers, Server returns with the context, and still reports the listening user.
func TestNoAnswer(t *testing.T) {
	l, client := listen(t)
	defer l.Close() // the connection stays in its queue
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if uid, err := client.Server(ctx); !errors.Is(err, context.DeadlineExceeded) || uid != os.Geteuid() {
		t.Errorf("uid %d, error %v", uid, err)
	}
}

// Root is told why it may not ask another user's crank, and what to do: the directory of a pod's volume is often open to many.
func TestWhyNotRoot(t *testing.T) {
	root.Need(t)
	for _, c := range []struct {
		mode  os.FileMode
		owner int
		says  string // "": accepted
	}{
		{0o755, app, ""},
		{0o777 | os.ModeSticky, 0, "others can write to DIR"},
		{0o775 | os.ModeSetgid, app, "others can write to DIR"},
		{0o755, 12345, "DIR belongs to uid 12345"},
	} {
		l, client := listen(t)
		dir := filepath.Dir(client.address)
		attack.AnswerAs(t, l, app)
		if err := errors.Join(os.Lchown(client.address, app, -1), os.Chown(dir, c.owner, -1), os.Chmod(dir, c.mode)); err != nil {
			t.Fatal(err)
		}
		_, err := client.Server(patient(t))
		want := "answered by uid 65534, but " + strings.ReplaceAll(c.says, "DIR", dir) + ": if you mean that one, run crankctl as uid 65534"
		if c.says == "" && err != nil || c.says != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("mode %v of uid %d: %v, want %s", c.mode, c.owner, err, want)
		}
	}
}

// A link that another user made leads to a socket of that user's choice, whoever serves that.
func TestForeignLink(t *testing.T) {
	root.Need(t)
	l, client := listen(t)
	attack.AnswerAs(t, l, 0)
	dir := shortDir(t)
	sub := filepath.Join(filepath.Dir(client.address), "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, link, path string
	}{
		{"the socket", client.address, "web.ctl"},
		{"the directory", filepath.Dir(client.address), "dir/web.ctl"},
		{"a directory, out of which the path leads", sub, "sub/../web.ctl"},
	} {
		for _, owner := range []int{0, app} {
			link := filepath.Join(dir, strings.Split(c.path, "/")[0])
			os.Remove(link)
			if err := errors.Join(os.Symlink(c.link, link), os.Lchown(link, owner, -1)); err != nil {
				t.Fatal(err)
			}
			through, _ := NewClient(dir+"/"+c.path, "")
			_, err := through.Server(patient(t))
			if owner == 0 && err != nil || owner != 0 && !strings.Contains(fmt.Sprint(err), link+" is a symbolic link of uid 65534") {
				t.Errorf("%s, link of uid %d: %v", c.name, owner, err)
			}
		}
	}
}

// In a user namespace all unmapped users look like user 65534, and so do their directories: root there does not take one for
// the other.
func TestUserWithoutID(t *testing.T) {
	root.Need(t)
	l, client := listen(t)
	dir := filepath.Dir(client.address)
	attack.AnswerAs(t, l, 12345)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, 12346, -1), os.Chown(client.address, 12347, -1), os.Chmod(client.address, 0o777)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), dialVariable+"="+client.address)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("NOT TESTED: a user without an id: cannot create a user namespace: %v %s", err, out)
	}
	if !strings.Contains(string(out), "answered by a user without an id in this user namespace (uid 65534)") {
		t.Errorf("it printed %s", out)
	}
}
