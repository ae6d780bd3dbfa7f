package output

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/linux"
)

// chunkSize is the most that is read at once: what a pipe holds, pipe(7).
const chunkSize = 64 << 10

// stream copies what one pipe brings. A nil stream is one that is inherited: nothing is to be done.
type stream struct {
	read *os.File // non-blocking, so that waiting holds no thread; closed by run
	app  int      // the app's end; -1: closed
	tail *Tail    // nil: not kept

	finishing atomic.Bool   // end when the pipe is empty
	done      chan struct{} // closed when run has returned

	mu      sync.Mutex // makes one of reading, counting and keeping
	taken   int64      // bytes read so far, all of them in tail
	waiting []waiter
}

// sink is where run writes.
type sink interface {
	io.WriteCloser
	// deadline returns until when run may wait for more; zero: without a deadline.
	deadline() time.Time
	// overdue is called if nothing has arrived by then, or by an earlier deadline.
	overdue()
}

// waiter is a flush under way: reached is closed when taken is target.
type waiter struct {
	target  int64
	reached chan struct{}
}

func newStream(name string, tail *Tail) (*stream, error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make a pipe for %s: %w", name, err)
	}
	// The ends are separate open file descriptions: the app's own stays blocking.
	err := os.NewSyscallError("fcntl", syscall.SetNonblock(ends[0], true))
	if err == nil {
		// An app that has dropped privileges opens /dev/stderr anew, which the kernel checks.
		err = os.NewSyscallError("fchmod", syscall.Fchmod(ends[1], 0o622))
	}
	if err != nil {
		syscall.Close(ends[0])
		syscall.Close(ends[1])
		return nil, fmt.Errorf("cannot prepare the pipe for %s: %w", name, err)
	}
	return &stream{
		read: os.NewFile(uintptr(ends[0]), name),
		app:  ends[1],
		tail: tail,
		done: make(chan struct{}),
	}, nil
}

func (s *stream) appEnd() int {
	if s == nil {
		return -1
	}
	return s.app
}

func (s *stream) closeAppEnd() {
	if s.app >= 0 {
		syscall.Close(s.app)
		s.app = -1
	}
}

func (s *stream) start(to sink) {
	if s != nil {
		go s.run(to) // ends when the last writer is gone, or by finish, or when read is closed
	}
}

// run copies until the end of the pipe. That to fails does not end it: the app must not notice.
func (s *stream) run(to sink) {
	defer close(s.done)
	defer s.read.Close()
	defer to.Close()
	chunk := make([]byte, chunkSize)
	for {
		n, err := s.next(chunk, to)
		if err != nil {
			return
		}
		_, _ = to.Write(chunk[:n]) // what cannot be written is dropped and counted
	}
}

// next waits for something to read, and calls to.overdue at the deadline. The error is io.EOF at the end of the input.
func (s *stream) next(chunk []byte, to sink) (n int, err error) {
	raw, err := s.read.SyscallConn()
	if err != nil {
		return 0, io.EOF
	}
	for {
		waited := raw.Read(func(fd uintptr) bool {
			if n, err = s.take(int(fd), chunk); err != syscall.EAGAIN {
				return true
			}
			if deadline := to.deadline(); !deadline.IsZero() {
				s.read.SetReadDeadline(deadline)
			}
			return s.finishing.Load() // which finish sets before its own deadline
		})
		switch {
		case errors.Is(waited, os.ErrDeadlineExceeded):
			// Also if finish has ended the wait: read once more, for what has arrived until then.
			s.read.SetReadDeadline(time.Time{})
			to.overdue()
		case waited != nil || err != nil || n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// take reads without waiting.
func (s *stream) take(fd int, chunk []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errno syscall.Errno
	for {
		if n, errno = linux.ReadNow(fd, chunk); errno != syscall.EINTR {
			break
		}
	}
	if errno != 0 {
		return 0, errno
	}
	if n == 0 {
		return 0, nil
	}
	if s.tail != nil {
		_, _ = s.tail.Write(chunk[:n]) // never fails
	}
	s.taken += int64(n)
	s.wake()
	return n, nil
}

func (s *stream) wake() {
	still := s.waiting[:0]
	for _, w := range s.waiting {
		if s.taken >= w.target {
			close(w.reached)
		} else {
			still = append(still, w)
		}
	}
	s.waiting = still
}

func (s *stream) flush(timeout time.Duration) bool {
	if s == nil {
		return true
	}
	reached, ok := s.await()
	if !ok {
		return true
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-reached:
		return true
	case <-s.done:
		return true
	case <-timer.C:
		return false
	}
}

// await registers a waiter for what is in the pipe now; ok is false if that is nothing.
func (s *stream) await() (reached chan struct{}, ok bool) {
	raw, err := s.read.SyscallConn()
	if err != nil {
		return nil, false
	}
	err = raw.Control(func(fd uintptr) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n, err := linux.Unread(int(fd)); err == nil && n > 0 {
			reached = make(chan struct{})
			s.waiting = append(s.waiting, waiter{s.taken + int64(n), reached})
		}
	})
	return reached, err == nil && reached != nil
}

// finish makes run end as soon as the pipe is empty.
func (s *stream) finish() {
	s.finishing.Store(true)
	s.read.SetReadDeadline(time.Unix(0, 1))
}
