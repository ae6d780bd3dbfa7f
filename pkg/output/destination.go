package output

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// Destination is crank's own stdout or stderr, written to by the generations and crank's log, each with its own Writer.
type Destination struct {
	fd       int
	terminal bool
	line     *line
	lost     atomic.Int64
}

// line is the last line of the file behind one or two Destinations.
type line struct {
	mu     sync.Mutex // held while one Write is under way
	openBy *Writer    // may continue it; nil: it is complete
}

// nobody is the owner of a line of which a part was lost: it is not continued.
var nobody = new(Writer)

// Destinations returns those of two descriptors, which stay the caller's. If both are the same file, as
// after 2>&1, writes to one and to the other do not mix either.
func Destinations(stdout, stderr int) (out, err *Destination) {
	out = &Destination{fd: stdout, terminal: linux.IsTerminal(stdout), line: new(line)}
	err = &Destination{fd: stderr, terminal: linux.IsTerminal(stderr), line: new(line)}
	if sameFile(stdout, stderr) {
		err.line = out.line
	}
	return out, err
}

func sameFile(a, b int) bool {
	var sa, sb syscall.Stat_t
	return syscall.Fstat(a, &sa) == nil && syscall.Fstat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// Writer is one of the writers to a Destination. If another Writer has left a line unfinished, it starts a new line. Several goroutines
// may use it.
type Writer struct {
	to     *Destination
	onLoss func(cause error) // called when something could not be written; may be nil
}

// Writer returns a new Writer.
func (d *Destination) Writer() *Writer { return &Writer{to: d} }

// Write blocks until all of p is written, also where whoever shares the descriptor has made it
// non-blocking. No other Writer's output comes between its bytes. It returns an error if nobody reads, the disk is full or the like; the
// rest of p is then counted as lost. The next Write tries again.
func (w *Writer) Write(p []byte) (n int, err error) { return w.writeAll(p) }

// writeAll is Write of several parts, which stay together. n counts the bytes of all.
func (w *Writer) writeAll(parts ...[]byte) (n int, err error) {
	l := w.to.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.openBy != nil && l.openBy != w {
		_, err = w.to.write([]byte("\n"))
	}
	for _, p := range parts {
		written := 0
		if err == nil {
			written, err = w.to.write(p)
			l.wrote(w, p[:written])
		}
		n += written
		w.to.lost.Add(int64(len(p) - written))
	}
	if err == nil {
		return n, nil
	}
	if l.openBy == w {
		l.openBy = nobody
	}
	if w.onLoss != nil {
		w.onLoss(err)
	}
	return n, err
}

func (l *line) wrote(w *Writer, p []byte) {
	if len(p) == 0 {
		return
	}
	l.openBy = w
	if p[len(p)-1] == '\n' {
		l.openBy = nil
	}
}

// write is a plain system call because the one of os.File ends the process on EPIPE of descriptors 1 and 2
// (see os/signal, SIGPIPE), and because O_NONBLOCK must not be set on what others share. The kernel's signals for it reach nobody (see
// linux.WithoutSignals).
func (d *Destination) write(p []byte) (n int, err error) {
	err = linux.WithoutSignals(d.terminal, func() error {
		n, err = d.writeRaw(p)
		return err
	})
	return n, err
}

func (d *Destination) writeRaw(p []byte) (n int, err error) {
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
