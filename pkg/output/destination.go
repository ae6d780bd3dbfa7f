package output

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// Destination is crank's own stdout or stderr, to which all generations write, and crank's log may.
// What is given to one Write stays together.
type Destination struct {
	fd   int
	turn *sync.Mutex // held while one Write is under way
	lost atomic.Int64
	once sync.Once
	// OnLoss, unless nil, is called when something is lost for the first time. It must not block. It is set before the first Write.
	OnLoss func(cause error)
}

// Destinations returns those of two descriptors, which stay the caller's. If both are the same file, as
// after 2>&1, writes to one and to the other do not mix either.
func Destinations(stdout, stderr int) (out, err *Destination) {
	out = &Destination{fd: stdout, turn: new(sync.Mutex)}
	err = &Destination{fd: stderr, turn: new(sync.Mutex)}
	if sameFile(stdout, stderr) {
		err.turn = out.turn
	}
	return out, err
}

func sameFile(a, b int) bool {
	var sa, sb syscall.Stat_t
	return syscall.Fstat(a, &sa) == nil && syscall.Fstat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// Write blocks until all of p is written, also where whoever shares the descriptor has made it
// non-blocking. It returns an error if nobody reads, the disk is full or the like; the rest of p is then
// counted as lost. The next Write tries again.
//
// It is a plain system call because the one of os.File ends the process on EPIPE of descriptors 1 and 2
// (see os/signal, SIGPIPE), and because O_NONBLOCK must not be set on what others share. The kernel's signals
// for it reach nobody (see linux.WithoutSignals).
func (d *Destination) Write(p []byte) (n int, err error) {
	d.turn.Lock()
	defer d.turn.Unlock()
	err = linux.WithoutSignals(func() error {
		n, err = d.write(p)
		return err
	})
	if n < len(p) {
		d.lost.Add(int64(len(p) - n))
		if d.OnLoss != nil {
			d.once.Do(func() { d.OnLoss(err) })
		}
	}
	return n, err
}

func (d *Destination) write(p []byte) (n int, err error) {
	for n < len(p) {
		written, err := syscall.Write(d.fd, p[n:])
		switch err {
		case nil:
			n += written
			continue
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if err = linux.WaitWritable(d.fd); err == nil {
				continue
			}
		}
		return n, os.NewSyscallError("write", err)
	}
	return n, nil
}

// Lost returns how many bytes could not be written.
func (d *Destination) Lost() int64 { return d.lost.Load() }
