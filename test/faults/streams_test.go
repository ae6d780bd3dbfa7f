package faults

import (
	"io"
	"os"
	"syscall"
)

// streamFaults are what happens to crank's stdout and stderr.
func streamFaults() []*fault {
	tag := func(c *cell) { c.flags = append(c.flags, "-output", "tag") }
	drains := rare(servesOn, "nobody is held up")
	ended := rare(endsWith(0), "nobody is held up")
	return []*fault{
		{
			name:   "stdout: its reader is gone (EPIPE)",
			setup:  func(c *cell) { c.pipe(&c.stdout) },
			inject: (*cell).closeReader,
			broken: true,
			at: [moments]expectation{
				beforeStart: rare(endsWith(141), "the app has the pipe itself, writes to it and is ended by SIGPIPE, as without crank"),
				starting:    none("it depends on what the candidate has written by then"),
				settling:    rare(swaps, "the candidate has written what it had to"),
				ready:       often(servesOn, "a candidate that writes to the pipe is ended by SIGPIPE and fails"),
				draining:    drains,
				stopping:    ended,
			},
		},
		{
			name:   "stdout: its reader is gone, -output tag",
			setup:  func(c *cell) { tag(c); c.pipe(&c.stdout) },
			inject: (*cell).closeReader,
			at: [moments]expectation{
				beforeStart: rare(starts, "crank reads what the app writes, and drops it"),
				starting:    rare(swaps, "crank reads what the app writes, and drops it"),
				settling:    rare(swaps, "crank reads what the app writes, and drops it"),
				ready:       often(swaps, "crank reads what the app writes, and drops it"),
				draining:    drains,
				stopping:    ended,
			},
		},
		{
			name:   "stdout: a full pipe that nobody reads",
			setup:  func(c *cell) { c.flags = append(c.flags, "-start", "2s"); c.pipe(&c.stdout) },
			inject: (*cell).fillPipe,
			at: [moments]expectation{
				beforeStart: rare(endsWith(124), "the app writes before it is ready, and waits: not ready in time"),
				starting:    none("it depends on what the candidate has written by then"),
				settling:    rare(swaps, "the candidate has written what it had to"),
				ready:       often(servesOn, "a candidate that writes before it is ready waits: not ready in time"),
				draining:    drains,
				stopping:    ended,
			},
		},
		{
			name:   "stdout: a full pipe that nobody reads, -output tag",
			setup:  func(c *cell) { tag(c); c.pipe(&c.stdout) },
			inject: (*cell).fillPipe,
			at: [moments]expectation{
				beforeStart: rare(starts, "crank reads on, up to what its buffer holds"),
				starting:    rare(swaps, "crank reads on, up to what its buffer holds"),
				settling:    rare(swaps, "crank reads on, up to what its buffer holds"),
				ready:       often(swaps, "crank reads on, up to what its buffer holds"),
				draining:    drains,
				stopping:    ended,
			},
		},
		{
			name:   "stderr: its reader is gone (EPIPE)",
			setup:  func(c *cell) { c.pipe(&c.stderr) },
			inject: (*cell).closeReader,
			deaf:   true,
			at: [moments]expectation{
				beforeStart: rare(starts, "the log is lost"),
				starting:    rare(swaps, "the log is lost"),
				settling:    rare(swaps, "the log is lost"),
				ready:       often(swaps, "the log is lost"),
				draining:    drains,
				stopping:    often(endsWith(0), "the log is lost"),
			},
		},
		{
			name:   "stderr: a full pipe that nobody reads",
			setup:  func(c *cell) { c.pipe(&c.stderr) },
			inject: (*cell).fillPipe,
			deaf:   true,
			at: [moments]expectation{
				beforeStart: rare(starts, "the log waits in a bounded queue, and what does not fit is counted"),
				starting:    rare(swaps, "the log waits in a bounded queue, and what does not fit is counted"),
				settling:    rare(swaps, "the log waits in a bounded queue, and what does not fit is counted"),
				ready:       often(swaps, "the log waits in a bounded queue, and what does not fit is counted"),
				draining:    drains,
				stopping:    often(endsWith(0), "the end of the log is waited for at most a second"),
			},
		},
	}
}

// pipe makes one of crank's streams a pipe, which something reads until the fault.
func (c *cell) pipe(stream **os.File) {
	c.Helper()
	r, w, err := os.Pipe()
	c.must(err)
	c.Cleanup(func() { r.Close(); w.Close() })
	*stream, c.reader, c.writer = w, r, w
	if c.moment != beforeStart {
		go io.Copy(io.Discard, r)
	}
}

func (c *cell) closeReader() {
	c.Helper()
	c.must(c.reader.Close())
}

// fillPipe has nobody read any more, and leaves no room. undo reads on.
func (c *cell) fillPipe() {
	c.Helper()
	// Of another open file description than crank's, whose flags are not to change.
	fd, err := syscall.Open(c.path(c.writer), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	c.must(err)
	defer syscall.Close(fd)
	own, err := os.Open(c.path(c.reader))
	c.must(err)
	c.must(c.reader.Close()) // ends the copying
	page := make([]byte, 4096)
	for _, size := range []int{len(page), 1} {
		for err = nil; err == nil; {
			_, err = syscall.Write(fd, page[:size])
		}
		if err != syscall.EAGAIN {
			c.Fatalf("the pipe is not full: %v", err)
		}
	}
	done := make(chan struct{})
	c.onUndo(func() {
		go func() {
			defer close(done)
			io.Copy(io.Discard, own)
		}()
	})
	c.Cleanup(func() { own.Close() })
}

// path is a way to open again what a file leads to. It must not be Fd, which makes the file blocking.
func (c *cell) path(f *os.File) string {
	c.Helper()
	raw, err := f.SyscallConn()
	c.must(err)
	path := ""
	c.must(raw.Control(func(fd uintptr) { path = "/proc/self/fd/" + itoa(fd) }))
	return path
}
