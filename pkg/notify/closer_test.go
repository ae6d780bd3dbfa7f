package notify

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// lingering returns a TCP socket on which close(2) blocks for an hour: its peer does not read what was sent. After end it no longer
// blocks.
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
		if failed == syscall.EAGAIN { // the peer's window and the socket's buffer are full
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

// TestLingeringSockets: a message counts immediately, whatever comes with it, and so do later ones; Close does not wait either.
func TestLingeringSockets(t *testing.T) {
	for name, pack := range map[string]func(t *testing.T, fd int) int{
		"a socket": func(_ *testing.T, fd int) int { return fd },
		"a unix socket with a socket in its queue": func(t *testing.T, fd int) int {
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
				defer end() // before open's cleanup closes r, for what the test leaves
				fd = pack(t, fd)
				send(t, c, text, fd)
				closeAll([]int{fd})
			}
			events := serve(r) // only now, so that the last ones are queued
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

// TestUnreadLingeringSockets: messages that are still queued do not delay Close.
func TestUnreadLingeringSockets(t *testing.T) {
	r := open(t, directory(t))
	c := dial(t, r.Address())
	for range 5 {
		fd, end := lingering(t)
		defer end()
		send(t, c, "READY=1", fd)
		closeAll([]int{fd})
	}
	ending(t, r) // nothing was read
}

// TestNoDescriptorLeft: if no descriptor is free for a file that is sent along, the kernel closes the file during the receive. That
// blocks only the reader of the generation that sent it: neither Close nor another receiver.
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
		t.Error("Close waits for a socket")
	}
}

// TestManyDescriptors: descriptors are closed in order, and the number that waits is bounded.
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
			t.Errorf("%d descriptors are waiting", n)
		}
		r.closer.mu.Unlock()
		for _, fd := range read {
			awaitEnd(t, "STATUS=x", fd)
		}
	}
}
