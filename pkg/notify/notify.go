// Package notify receives what the app says about itself by the protocol of sd_notify(3).
package notify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/linux"
)

// MaxDatagram is the maximum length of a datagram in bytes; longer ones are void.
const MaxDatagram = 64 << 10

// maxPath is the longest path of a unix socket, without the zero at its end: unix(7).
const maxPath = 107

// Sender is the process that sent a message, as the kernel tells. PID is 0 for one of another pid
// namespace. The process may be gone already, and its number even be in use again.
type Sender struct {
	PID, UID, GID int
	Abstract      bool // it sent to an abstract address, which every process of the network namespace can find
	Inherited     bool // it sent on the pair, whose other end only the app was given
}

const pairName = "notify pair"

// Receiver holds the two sockets on which one generation of the app can speak: one at an address, for
// NOTIFY_SOCKET, and a pair whose other end is handed to the app, for NOTIFY_FD.
type Receiver struct {
	address string
	path    os.FileInfo // of the socket's file; nil for an abstract address
	sockets []*os.File  // crank's ends
	appEnd  int         // -1: closed

	closing chan struct{}
	closed  sync.Once
	readers sync.WaitGroup
	turn    sync.Mutex // held while a message is handled
	closer  *closer
	busy    atomic.Int32 // messages that were taken from a socket and not handled yet
}

// Open makes the sockets for one generation. The one with an address has a name that cannot be guessed
// and that every user may write to: in dir, which must not let others list or write (mode 0711), or
// abstract if dir is empty. Abstract names stand in /proc/net/unix for everyone in the network
// namespace: there the Sender is what to trust, and says so. The caller must Close the Receiver.
func Open(dir string, generation int) (*Receiver, error) {
	r := &Receiver{closing: make(chan struct{}), appEnd: -1, closer: newCloser()}
	if err := r.openAddress(dir, generation); err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot open notify socket %s: %w", r.address, err)
	}
	ours, theirs, err := linux.CredentialsPair()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot open notify socket pair: %w", err)
	}
	r.appEnd = theirs
	r.sockets = append(r.sockets, os.NewFile(uintptr(ours), pairName))
	return r, nil
}

func (r *Receiver) openAddress(dir string, generation int) error {
	name := fmt.Sprintf("notify-%d-%s", generation, linux.RandomName())
	r.address = "@crank-" + name
	if dir != "" {
		// sd_notify(3) takes absolute paths only.
		abs, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		r.address = abs
		if len(abs) > maxPath {
			return fmt.Errorf("the name has %d bytes, a socket's at most %d: use a shorter runtime directory", len(abs), maxPath)
		}
	}
	fd, err := linux.CredentialsSocket(r.address)
	if err != nil {
		return err
	}
	r.sockets = append(r.sockets, os.NewFile(uintptr(fd), r.address))
	if dir == "" {
		return nil
	}
	if r.path, err = os.Lstat(r.address); err != nil {
		return err
	}
	return openToAll(r.address)
}

// openToAll sets the mode of a socket's file, whatever the umask was. Where somebody has put something else in its place
// meanwhile, a link or a file, that is left alone.
func openToAll(path string) error {
	file, err := linux.OpenSocketFile(path)
	if err != nil {
		return err
	}
	defer linux.Close(file)
	if err := linux.ChmodOpened(file, 0o666); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil // an old kernel without /proc: crank's own user can write to it
}

// Address returns the value for NOTIFY_SOCKET: an absolute path, or "@name".
func (r *Receiver) Address() string { return r.address }

// AppFD returns the descriptor for NOTIFY_FD, or -1 after CloseAppEnd. It is blocking and
// close-on-exec: the child that is to have it duplicates it.
func (r *Receiver) AppFD() int { return r.appEnd }

// CloseAppEnd closes AppFD. It is to be called once the child has its copy, by who calls Close.
func (r *Receiver) CloseAppEnd() {
	if r.appEnd >= 0 {
		syscall.Close(r.appEnd)
		r.appEnd = -1
	}
}

// Serve starts to receive, and returns at once. handle is called for one message at a time, in the
// order of each socket; while it blocks nothing is read, and soon the app's writes block too. An empty
// datagram is not a message; for a void one handle gets the reason. Descriptors sent along are closed concurrently; those of a BARRIER=1 are closed
// after handle: their sender then knows that all it sent on that socket before was handled.
func (r *Receiver) Serve(handle func(Sender, Message)) {
	for _, socket := range r.sockets {
		abstract, inherited := strings.HasPrefix(socket.Name(), "@"), socket.Name() == pairName
		r.readers.Go(func() {
			r.read(socket, func(from Sender, m Message) {
				from.Abstract, from.Inherited = abstract, inherited
				handle(from, m)
			})
		})
	}
}

// Idle reports whether everything that was sent before the call has been handled. Who knows that
// the app has ended can so let its last words count first. It does not block.
func (r *Receiver) Idle() bool {
	for _, socket := range r.sockets {
		raw, err := socket.SyscallConn()
		if err != nil {
			continue
		}
		unread := 0
		if raw.Control(func(fd uintptr) { unread, _ = linux.Unread(int(fd)) }) == nil && unread > 0 {
			return false
		}
	}
	// In this order: a message leaves its socket after it was counted as busy.
	return r.busy.Load() == 0
}

// closeTimeout is how long Close waits for descriptors to be closed.
const closeTimeout = time.Second

// maxUnread is how many unread messages Close reads for the descriptors that they may hold: more than a socket's queue has room for
// (net.unix.max_dgram_qlen).
const maxUnread = 1024

// Close removes the address and closes all descriptors. It returns when no call of handle runs or will run, and the descriptors
// are closed. For the latter it waits closeTimeout at most: some of what an app sent can make close(2) block for long.
// It must not be called from handle. Messages that were not read yet are lost. It may be called twice.
func (r *Receiver) Close() {
	r.closed.Do(func() {
		close(r.closing)
		r.removePath()
		r.CloseAppEnd()
		r.closer.end()
		r.readers.Go(r.closeSockets)
	})
	r.turn.Lock()   // until no message is being handled
	r.turn.Unlock() //nolint:staticcheck // nothing to do in between
	ended := make(chan struct{})
	go func() { // ends with them
		r.readers.Wait()
		r.closer.wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(closeTimeout):
	}
}

// closeSockets takes the queued descriptors before it closes the sockets: the kernel would close them without checking whether they
// linger.
func (r *Receiver) closeSockets() {
	for _, socket := range r.sockets {
		raw, err := socket.SyscallConn()
		if err == nil {
			_ = raw.Control(func(fd uintptr) { r.drain(int(fd)) })
		}
		socket.Close()
	}
}

func (r *Receiver) drain(fd int) {
	for range maxUnread {
		got, err := receiveNow(fd)
		if err != nil {
			return
		}
		r.closer.add(got.descriptors)
	}
}

// removePath leaves alone what somebody else has put in the socket's place.
func (r *Receiver) removePath() {
	if r.path == nil {
		return
	}
	if now, err := os.Lstat(r.address); err == nil && os.SameFile(now, r.path) {
		os.Remove(r.address)
	}
}

func (r *Receiver) read(socket *os.File, handle func(Sender, Message)) {
	for {
		got, err := r.receive(socket)
		switch {
		case err == nil:
			r.deliver(got, handle)
			r.busy.Add(-1)
		case errors.Is(err, errClosed):
			return
		case errors.Is(err, syscall.ECONNRESET):
			// The app connected its end to something else. It is reported once.
		default:
			// Out of memory, most likely. Neither spin nor stop listening.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-r.closing:
				return
			}
		}
	}
}

func (r *Receiver) deliver(got received, handle func(Sender, Message)) {
	if !got.message.Barrier {
		r.closer.add(got.descriptors)
		got.descriptors = nil
	}
	defer func() { r.closer.add(got.descriptors) }()
	if got.empty {
		return
	}
	r.turn.Lock()
	defer r.turn.Unlock()
	select {
	case <-r.closing: // closed while the other socket's message was handled
	default:
		handle(got.sender, got.message)
	}
}

type received struct {
	sender      Sender
	message     Message
	descriptors []int
	empty       bool
}

var errClosed = errors.New("closed")

// rooms is memory for datagrams. Room is taken only when there may be something to read, so that
// sockets on which nobody speaks cost none.
var rooms = sync.Pool{New: func() any {
	return &linux.Datagram{Data: make([]byte, MaxDatagram), OOB: make([]byte, linux.CredentialsOOB)}
}}

// receive waits for a datagram, and counts it as busy. The error is errClosed after Close, else recvmsg's.
func (r *Receiver) receive(socket *os.File) (got received, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return got, errClosed
	}
	closed := raw.Read(func(fd uintptr) bool {
		r.busy.Add(1)
		if got, err = receiveNow(int(fd)); err != nil {
			r.busy.Add(-1)
		}
		return !errors.Is(err, syscall.EAGAIN)
	})
	if closed != nil {
		return got, errClosed
	}
	return got, err
}

func receiveNow(fd int) (got received, err error) {
	room := rooms.Get().(*linux.Datagram)
	defer rooms.Put(room)
	if err := linux.ReceiveDatagram(fd, room); err != nil {
		return got, err
	}
	got = received{
		sender:      Sender{PID: room.Sender.PID, UID: room.Sender.UID, GID: room.Sender.GID},
		message:     Message{Void: voidLong},
		descriptors: room.Descriptors,
		empty:       room.N == 0, // not an end: nobody shuts down a datagram socket
	}
	if !room.Truncated {
		got.message = Parse(room.Data[:room.N])
	}
	return got, nil
}
