package notify

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// lingering returns a TCP socket that close(2) waits for, for an hour: its peer does not read what was sent. Once end is called it
// waits no longer.
func lingering(t *testing.T) (fd int, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	local, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	remote, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	end = func() { remote.Close() }
	t.Cleanup(end)
	raw, err := local.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(local uintptr) {
		for chunk := make([]byte, 1<<20); failed == nil; {
			_, failed = syscall.Write(int(local), chunk)
		}
		if failed == syscall.EAGAIN { // the peer's window is full, and so is the socket
			failed = syscall.SetsockoptLinger(int(local), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 3600})
		}
		if failed == nil {
			fd, failed = syscall.Dup(int(local))
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return fd, end
}

// TestLingeringSockets: a message counts at once whatever comes with it, and so do those after it; the end does not wait either.
func TestLingeringSockets(t *testing.T) {
	for name, pack := range map[string]func(t *testing.T, fd int) int{
		"a socket": func(_ *testing.T, fd int) int { return fd },
		"a unix socket with one in its queue": func(t *testing.T, fd int) int {
			pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Sendmsg(pair[0], []byte("x"), syscall.UnixRights(fd), nil, 0); err != nil {
				t.Fatal(err)
			}
			closeAll([]int{pair[0], fd})
			return pair[1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, directory(t))
			c := dial(t, r.Address())
			for _, text := range []string{"READY=1", "STATUS=x", "BARRIER=1", string(make([]byte, MaxDatagram+1))} {
				fd, end := lingering(t)
				defer end() // before the Close of open, for what the test leaves
				fd = pack(t, fd)
				send(t, c, text, fd)
				closeAll([]int{fd})
			}
			events := serve(r) // only now: the last ones are in the queue
			if e := next(t, events); !e.Ready {
				t.Errorf("first: %+v", e)
			}
			if e := next(t, events); e.Status != "x" {
				t.Errorf("second: %+v", e)
			}
			next(t, events) // the barrier
			ending(t, r)
		})
	}
}

// TestUnreadLingeringSockets: what is still in the queue at the end holds nobody up.
func TestUnreadLingeringSockets(t *testing.T) {
	r := open(t, directory(t))
	c := dial(t, r.Address())
	for range 5 {
		fd, end := lingering(t)
		defer end()
		send(t, c, "READY=1", fd)
		closeAll([]int{fd})
	}
	ending(t, r) // nobody has read
}

// TestNoDescriptorLeft: where there is none for what is sent along, the kernel closes it while it is received. That holds up
// nobody but the one that has sent it: not its end, and not another receiver.
func TestNoDescriptorLeft(t *testing.T) {
	r, other := open(t, directory(t)), open(t, directory(t))
	c, fine := dial(t, r.Address()), dial(t, other.Address())
	fd, end := lingering(t)
	defer end()
	send(t, c, "READY=1", fd)
	closeAll([]int{fd})
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	serve(r)
	events := serve(other)
	send(t, fine, "STATUS=x")
	if e := next(t, events); e.Status != "x" {
		t.Errorf("%+v", e)
	}
	restore()
	ending(t, r)
}

// ending closes a receiver, which takes a second at most; a busy machine takes longer.
func ending(t *testing.T, r *Receiver) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		r.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("the end waits for a socket")
	}
}

// TestManyDescriptors: they are closed in turn, and those that wait are not without a bound.
func TestManyDescriptors(t *testing.T) {
	const most = 253 // SCM_MAX_FD
	r := open(t, directory(t))
	c := dial(t, r.Address())
	events := serve(r)
	for range 40 {
		read, write := pipes(t, most)
		send(t, c, "STATUS=x", write...)
		closeAll(write)
		next(t, events)
		r.closer.mu.Lock()
		if n := len(r.closer.fds); n > maxUnclosed+most {
			t.Errorf("%d descriptors wait", n)
		}
		r.closer.mu.Unlock()
		for _, fd := range read {
			awaitEnd(t, "STATUS=x", fd)
		}
	}
}
