package logging

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The queue's bounds: what a burst needs, and nothing that the app's memory limit would feel.
const (
	maxLines = 1024
	maxBytes = 256 << 10
)

// Writer passes lines on to another writer without ever blocking its caller: one goroutine writes,
// and what does not fit into its queue is dropped, counted, and said in one line once there is room
// again. Every Write is one Write of the other, which keeps it whole and may block for any length of time. The first line starts the
// goroutine: a plain init mostly has none.
type Writer struct {
	to      io.Writer
	lost    func(n int64) []byte // the line that says so
	ends    func()               // called first by Close; may write
	dropped atomic.Int64

	mu      sync.Mutex
	queue   []entry
	bytes   int
	unsaid  int64 // dropped, and not said yet
	started bool  // there is a goroutine
	closed  bool

	wake    chan struct{} // has room for one: something is queued, or it is closed
	stopped chan struct{} // closed when the goroutine has ended
	broken  bool          // the goroutine's own: the last write failed
}

// entry is a line, or a mark that tells a Flush that all before it is done.
type entry struct {
	line    []byte
	reached chan<- struct{}
}

func newWriter(to io.Writer, lost func(int64) []byte) *Writer {
	return &Writer{to: to, lost: lost, ends: func() {}, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// Write queues a copy of line, or drops it. It never blocks and never fails.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.queue) >= maxLines || w.bytes+len(line) > maxBytes {
		w.drop()
		return len(line), nil
	}
	w.bytes += len(line)
	w.push(entry{line: slices.Clone(line)})
	return len(line), nil
}

// Dropped returns how many lines were dropped so far: no room, a failed write, or closed.
func (w *Writer) Dropped() int64 { return w.dropped.Load() }

// Flush waits until everything that was queued before is written or dropped, at most for timeout,
// and reports whether it was.
func (w *Writer) Flush(timeout time.Duration) bool {
	reached := make(chan struct{})
	w.mu.Lock()
	switch {
	case w.closed:
		reached = w.stopped
	case w.started:
		w.push(entry{reached: reached})
	default:
		close(reached)
	}
	w.mu.Unlock()
	return within(reached, timeout)
}

// Close flushes and ends the Writer, and reports whether it has ended within timeout. What is
// written later is dropped. It does not close the other writer; a Write of that one that never
// returns keeps the goroutine. Close may be called again.
func (w *Writer) Close(timeout time.Duration) bool {
	w.ends()
	w.mu.Lock()
	if !w.closed && !w.started {
		close(w.stopped)
	}
	w.closed = true
	w.signal()
	w.mu.Unlock()
	return within(w.stopped, timeout)
}

func within(done <-chan struct{}, timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// push and drop need mu.
func (w *Writer) push(e entry) {
	w.queue = append(w.queue, e)
	w.signal()
	if !w.started {
		w.started = true
		go w.run() // ends with Close
	}
}

func (w *Writer) drop() {
	w.dropped.Add(1)
	w.unsaid++
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) run() {
	defer close(w.stopped)
	for {
		w.mu.Lock()
		queue, unsaid, closed := w.queue, w.unsaid, w.closed
		w.mu.Unlock()
		switch {
		case len(queue) > 0:
			w.handle(queue[0])
		case unsaid > 0 && !w.broken:
			w.sayLost(unsaid)
		case closed:
			return
		default:
			<-w.wake
		}
	}
}

// handle keeps its entry in the queue until it is done, so that the bounds hold for it too.
func (w *Writer) handle(e entry) {
	ok := e.reached != nil || w.write(e.line)
	w.mu.Lock()
	w.queue[0] = entry{} // or the array would keep it
	w.queue = w.queue[1:]
	w.bytes -= len(e.line)
	if !ok {
		w.drop()
	}
	w.mu.Unlock()
	if e.reached != nil {
		close(e.reached)
	}
}

func (w *Writer) sayLost(n int64) {
	if !w.write(w.lost(n)) {
		return // again after the next line that can be written
	}
	w.mu.Lock()
	w.unsaid -= n
	w.mu.Unlock()
}

// write reports whether the whole line is written. A closed pipe (EPIPE), a full disk or the file size limit (EFBIG)
// costs this line alone: the next one is tried again.
func (w *Writer) write(line []byte) bool {
	_, err := w.to.Write(line)
	w.broken = err != nil
	return err == nil
}
