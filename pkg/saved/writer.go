package saved

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
)

// ErrClosed is the result of a Save after Close.
var ErrClosed = errors.New("cannot save the command: crank is ending")

// Writer writes records to one file, one at a time, from a goroutine of its own: a disk that is
// full, read-only or does not answer at all holds up nobody. The first Save starts it: most who have
// crank as an init never save.
type Writer struct {
	path string
	log  logr.Logger
	wake chan struct{} // capacity 1: something is pending, or closed
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	pending []byte       // the newest record, nil for none
	waiters []chan error // those who wait for it
	started bool         // there is a goroutine
	closed  bool
	failed  error // of the newest write
}

// New returns a writer of path. The first Save also removes what an earlier one left half-written
// beside it. With an empty path it does nothing at all. The directory is not made.
//
// Close ends it.
func New(path string, log logr.Logger) *Writer {
	return &Writer{path: path, log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Save asks for rec to be written, and never blocks. The channel is closed once rec, or a newer
// record, is on disk; if that failed it carries one error first. Whoever asked need not wait. The
// newest record wins: one that has not been begun is not written at all. A failure is not
// retried, but the next Save tries again. With an empty path the channel is nil.
func (w *Writer) Save(rec Record) <-chan error {
	if w.path == "" {
		return nil
	}
	result := make(chan error, 1)
	data, err := encode(rec)
	if err != nil {
		w.answer([]chan error{result}, fmt.Errorf("cannot save the command: %w", err))
		return result
	}
	if !w.offer(data, result) {
		result <- ErrClosed
		close(result)
		return result
	}
	w.nudge()
	return result
}

// Err returns why the newest record could not be written to disk; nil: it was, or there was none.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// offer makes data the newest record, or returns false after Close.
func (w *Writer) offer(data []byte, waiter chan error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.pending = data
	w.waiters = append(w.waiters, waiter)
	if !w.started {
		w.started = true
		go w.run() // ends with Close
	}
	return true
}

// Close lets what was asked for be written, and ends the writer. It waits at most timeout; after
// that the write goes on for as long as the disk and the process last.
func (w *Writer) Close(timeout time.Duration) error {
	w.mu.Lock()
	w.closed = true
	started := w.started
	w.mu.Unlock()
	if !started {
		return nil
	}
	w.nudge()

	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-w.done:
		return nil
	case <-timer.C:
	}
	select {
	case <-w.done: // both, with a timeout of 0
		return nil
	default:
		return fmt.Errorf("cannot save the command: %s was not written within %v", w.path, timeout)
	}
}

// nudge never blocks: the channel has room for the one that is needed.
func (w *Writer) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) run() {
	defer close(w.done)
	w.removeStale()
	for range w.wake {
		w.mu.Lock()
		data, waiters, closed := w.pending, w.waiters, w.closed
		w.pending, w.waiters = nil, nil
		w.mu.Unlock()
		if data != nil {
			err := w.write(data)
			w.mu.Lock()
			w.failed = err
			w.mu.Unlock()
			w.answer(waiters, err)
		}
		if closed {
			return
		}
	}
}

// answer also logs a failure: after a signal nobody waits, and a full disk should be seen.
func (w *Writer) answer(waiters []chan error, err error) {
	if err != nil {
		w.log.Error(err, "command not saved", "path", w.path)
	}
	for _, waiter := range waiters {
		if err != nil {
			waiter <- err
		}
		close(waiter)
	}
}

// write replaces the file as a whole: a reader, and a machine that loses power, finds the old
// content or the new, never a part. A file that has the new content already, as after most restarts, is left; whoever wrote it
// may have been killed before it was durable.
func (w *Writer) write(data []byte) error {
	dir := filepath.Dir(w.path)
	if !w.isWritten(data) {
		if err := w.replace(data, dir); errors.Is(err, ErrForeign) {
			return fmt.Errorf("cannot save the command: %w: choose another path with -conf (CRANK_CONF), or remove it", err)
		} else if err != nil {
			return fmt.Errorf("cannot save the command: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("cannot be sure that the command is saved: %w", err)
	}
	return nil
}

// isWritten reports whether the file has this content, on disk.
func (w *Writer) isWritten(data []byte) bool {
	old, err := look(w.path)
	if err != nil || !bytes.Equal(old, data) {
		return false
	}
	f, err := os.OpenFile(w.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Sync() == nil
}

// replace never touches a file that is not crank's own.
func (w *Writer) replace(data []byte, dir string) error {
	temp := filepath.Join(dir, w.tempPrefix()+randomName())
	if err := linux.WithoutSignals(false, func() error { return writeTemp(temp, data) }); err != nil {
		return err
	}
	if err := put(temp, w.path); err != nil {
		return errors.Join(err, removeOwn(temp))
	}
	return nil
}

// writeTemp leaves nothing behind where it fails, unless the file was somebody else's.
func writeTemp(name string, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, tempMode)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			os.Remove(name)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes a rename durable. EINVAL is fsync(2)'s answer where a filesystem has no such thing.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// tempMode is the mode of a temporary file, and then of the file.
const tempMode = 0o600

// tempRandom is the number of random bytes, in hex, that end the name of a temporary file.
const tempRandom = 8

func randomName() string {
	b := make([]byte, tempRandom)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func isRandom(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == tempRandom
}

func (w *Writer) tempPrefix() string { return "." + filepath.Base(w.path) + ".tmp-" }

// removeStale removes temporary files left by a killed writer of this path: of that name, and crank's own or still empty. Nobody else
// writes this path at the same time; otherwise only that one Save of theirs would fail.
func (w *Writer) removeStale() {
	dir := filepath.Dir(w.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // Save will say so
	}
	for _, entry := range entries {
		random, ours := strings.CutPrefix(entry.Name(), w.tempPrefix())
		if !ours || !isRandom(random) {
			continue
		}
		name := filepath.Join(dir, entry.Name())
		if info, err := os.Lstat(name); err == nil && info.Mode() == tempMode && info.Size() == 0 {
			os.Remove(name)
		} else {
			_ = removeOwn(name) // or it is somebody else's
		}
	}
}
