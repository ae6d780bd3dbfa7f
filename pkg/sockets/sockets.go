// Package sockets holds the listening sockets: bound once, handed to every generation.
package sockets

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/go-logr/logr"
)

// Set is the sockets of one Bind, in the order of their addresses.
type Set struct{ sockets []*Socket }

// Socket is one bound socket. Its methods can be called by several goroutines at once.
type Socket struct {
	address Address // as it was asked for
	bound   Address // as getsockname has it
	backlog int     // for listen(2); 0: it does not listen, or is inherited and hides it
	limit   uint32  // of the queue that resulted, where the kernel shows it
	file    os.FileInfo
	shared  bool   // with other processes
	spare   string // the second name of the path; empty: none

	// How it was bound, for Tend.
	domain, protocol int
	device, v6only   int
	listens          bool
	datagrams        bool // from any peer

	mu         sync.Mutex // held during every call on fd, so that it is not closed in the middle of one
	fd         int        // -1 once closed
	remoteRead time.Time  // when hasRemote last read /proc
	remote     bool       // its result
	visit      *visit     // the unfinished one to the path; nil: none
	violated   []Damage   // invariants that could not be restored
	lost       []lost     // properties that could not be put back
	restored   int64
}

// Bind makes a socket for each address, to be shared with an app, listening where that applies. It is all or nothing: on an
// error what it made is closed again. It blocks for at most two seconds, and only where another
// process takes over the same unix socket at the same moment.
//
// All sockets are close-on-exec, plain TCP rather than MPTCP, and in blocking mode unless nonblock
// was asked for: O_NONBLOCK is shared by all who have the socket, so nothing here touches it
// afterwards.
//
// Call it before anything else opens descriptors: an fd://n that the parent did not pass could
// otherwise be one of this process's own.
func Bind(addresses []Address, log logr.Logger) (*Set, error) {
	return newSet(addresses, true, log)
}

// newSet binds sockets; shared ones get a second name.
func newSet(addresses []Address, shared bool, log logr.Logger) (*Set, error) {
	set := &Set{sockets: make([]*Socket, len(addresses))}
	err := set.bind(addresses, shared, log)
	if err != nil {
		return nil, errors.Join(err, set.Close())
	}
	for _, s := range set.sockets {
		log.Info("socket bound", "socket", s.Name(), "address", s.address.String(), "bound", s.Bound())
	}
	return set, nil
}

func (set *Set) bind(addresses []Address, shared bool, log logr.Logger) (err error) {
	// Inherited ones first, and their duplicates above all of them: no number that an address names
	// may be taken by a socket that is made here.
	lowest := 3
	for _, a := range addresses {
		lowest = max(lowest, a.FD+1)
	}
	for _, inherited := range []bool{true, false} {
		for i, a := range addresses {
			if (a.Network == "fd") != inherited {
				continue
			}
			if inherited {
				set.sockets[i], err = inherit(a, lowest)
			} else {
				set.sockets[i], err = bind(a, shared, log)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// readName sets bound: the network of a TCP or UDP socket says which families it serves.
func (s *Socket) readName() error {
	inet, name, err := linux.SocketName(s.fd)
	if err != nil {
		return err
	}
	kind, err := linux.Option(s.fd, linux.SocketType)
	if err != nil {
		return err
	}
	s.bound = Address{Network: "fd", FD: s.address.FD} // what has no net-uri
	switch {
	case inet.IsValid():
		network := map[int]string{syscall.SOCK_STREAM: "tcp", syscall.SOCK_DGRAM: "udp"}[kind]
		if network == "" {
			return nil
		}
		v6only, _ := linux.Option(s.fd, linux.V6Only) // fails on IPv4
		switch {
		case inet.Addr().Is4():
			network += "4"
		case v6only != 0:
			network += "6"
		}
		s.bound = Address{Network: network, Host: inet.Addr().String(), Port: int(inet.Port())}
	case name != "":
		s.bound = Address{Network: unixNetwork(kind), Path: name}
	}
	return nil
}

// Sockets returns the sockets in the order of their addresses.
func (set *Set) Sockets() []*Socket { return set.sockets }

// Relisten sets explicitly configured backlogs (backlog=) again. Call it after READY: an app's own listen(2) may have raised one. Tend
// restores those that were lowered.
func (set *Set) Relisten() error {
	var errs []error
	for _, s := range set.sockets {
		if s.address.Options.Backlog > 0 {
			errs = append(errs, s.relisten())
		}
	}
	return errors.Join(errs...)
}

// listenAgain listens where the socket has been from the beginning. A shutdown(2) gives up a port that the kernel had
// chosen (tcp_disconnect; getsockname(2) still shows it), and listen(2) alone would then choose another.
func (s *Socket) listenAgain() error {
	var err error
	if at, ok := s.inetAddress(); ok {
		if repair, err := linux.Option(s.fd, linux.Repair); err == nil && repair != 0 {
			_ = linux.SetOption(s.fd, linux.Repair, linux.RepairOff) // needs CAP_NET_ADMIN, as setting it did
		}
		err = s.bindAgain(at)
	}
	if err == nil || errors.Is(err, syscall.EINVAL) { // it has its port still
		err = linux.Listen(s.fd, s.backlog)
	}
	if err != nil {
		return fmt.Errorf("cannot listen again on %s: %w", s.address, err)
	}
	return nil
}

// Close closes the sockets, and unlinks the paths that are still theirs. The connections that wait
// in a queue are reset only if no other process has the socket. Further calls do nothing.
func (set *Set) Close() error {
	var errs []error
	for _, s := range set.sockets {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// Name returns the name for LISTEN_FDNAMES.
func (s *Socket) Name() string { return cmp.Or(s.address.Name, DefaultName) }

// Address returns what was asked for.
func (s *Socket) Address() Address { return s.address }

// Bound returns where the socket is, as getsockname(2) has it, in the form of a net-uri: tcp:// with
// an IPv6 address serves both families, tcp6:// and tcp4:// one. fd://n is a socket that no other
// form describes.
func (s *Socket) Bound() string { return s.bound.String() }

// FD returns the descriptor, -1 once the Set is closed. The Set owns it: the caller never closes it,
// and never changes it or its flags (os.NewFile may do that).
func (s *Socket) FD() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fd
}

func (s *Socket) relisten() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || !s.listens {
		return nil
	}
	return s.listenAgain()
}

// Queue returns how many connections wait to be accepted, and how many may (the kernel takes one
// more). It fails for all but TCP listeners: nothing tells for the others.
func (s *Socket) Queue() (length, limit uint32, err error) {
	if !strings.HasPrefix(s.bound.Network, "tcp") {
		return 0, 0, fmt.Errorf("cannot read the queue of %s: %w", s.address, errors.ErrUnsupported)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return 0, 0, fmt.Errorf("cannot read the queue of %s: %w", s.address, os.ErrClosed)
	}
	length, limit, listening, err := linux.ListenQueue(s.fd)
	if err == nil && !listening {
		err = errors.New("it does not listen")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read the queue of %s: %w", s.address, err)
	}
	return length, limit, nil
}

func (s *Socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	// The path first: as long as the socket is open its inode's number cannot be given to another.
	err := s.removeNames()
	linux.Close(s.fd)
	s.fd = -1
	return err
}

// unlink removes the path unless somebody else's file is there now.
func (s *Socket) unlink() error {
	if s.file == nil {
		return nil
	}
	if !s.isOwn(s.address.Path) {
		return nil
	}
	if err := os.Remove(s.address.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the path of %s: %w", s.address, err)
	}
	return nil
}
