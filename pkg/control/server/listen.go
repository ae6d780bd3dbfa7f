package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/sockets"
	"github.com/crankctl/crank/pkg/supervisor"
)

// MaxConnections is how many connections are served at a time; more wait in the socket's queue,
// so that a flood of them cannot take crank's descriptors.
const MaxConnections = 64

// Listener accepts connections to the control socket and says who made each of them.
type Listener struct {
	*sockets.Listener
	token []byte // TCP: what a request must bring
	slots chan struct{}
	close sync.Once
	ended chan struct{}
}

// Listen binds the control socket. The address is the path of a unix socket, made with mode 0600,
// or tcp://HOST:PORT with a loopback host, for which tokenFile must name a file with a token
// that only crank's own user can read.
//
// What a dead crank left behind at the path is taken over; a socket that somebody serves, and
// anything that is no socket, is an error. The caller closes the Listener, which removes the path
// if it is still the one that was bound.
func Listen(address, tokenFile string) (*Listener, error) {
	l := &Listener{slots: make(chan struct{}, MaxConnections), ended: make(chan struct{})}
	var err error
	if hostPort, ok := strings.CutPrefix(address, "tcp://"); ok {
		err = l.listenTCP(hostPort, tokenFile)
	} else {
		err = l.listenUnix(strings.TrimPrefix(address, "unix://"))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the control socket %s: %w", address, err)
	}
	return l, nil
}

func (l *Listener) listenUnix(path string) error {
	if path == "" || strings.HasPrefix(path, "@") {
		return errors.New("it needs a path, since an abstract address has no permissions")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return l.bind("unix://" + path + "?mode=0600")
}

func (l *Listener) listenTCP(hostPort, tokenFile string) error {
	address, err := sockets.ParseAddress("tcp://" + hostPort)
	if err != nil {
		return err
	}
	host, err := netip.ParseAddr(address.Host)
	if address.Host != "localhost" && (err != nil || !host.IsLoopback()) {
		return errors.New("only a loopback address is allowed: who reaches it can run any command")
	}
	if l.token, err = readToken(tokenFile); err != nil {
		return err
	}
	return l.bind("tcp://" + hostPort)
}

func (l *Listener) bind(uri string) error {
	address, err := sockets.ParseAddress(uri)
	if err != nil {
		return err
	}
	l.Listener, err = sockets.Listen(address, logr.Discard())
	return err
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (%v)", err)
}

func readToken(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("CRANK_CTL_TOKEN_FILE must name a file with a token")
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is refused, not waited for
	if err != nil {
		return nil, fmt.Errorf("CRANK_CTL_TOKEN_FILE: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("CRANK_CTL_TOKEN_FILE: %w", err)
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != 0 && owner != geteuid() {
		return nil, fmt.Errorf("CRANK_CTL_TOKEN_FILE: %s belongs to uid %d, who knows the token then: chown it to %d", path, owner, geteuid())
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > 4096 {
		return nil, fmt.Errorf("CRANK_CTL_TOKEN_FILE: %s must be a small regular file of mode 0600, it is %s", path, info.Mode())
	}
	content := make([]byte, info.Size())
	n, err := file.Read(content)
	token := bytes.TrimSpace(content[:n])
	if len(token) < 16 {
		return nil, fmt.Errorf("CRANK_CTL_TOKEN_FILE: %s must hold at least 16 bytes%s", path, because(err))
	}
	return token, nil
}

// Close ends Accept and removes the socket's path, unless another socket is there by now.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// Accept waits for a connection and for one of the MaxConnections slots.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	accepted, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	c := &conn{Conn: accepted, release: sync.OnceFunc(func() { <-l.slots }), token: l.token}
	c.asker, c.err = askerOf(accepted)
	return c, nil
}

// conn is an accepted connection and who made it.
type conn struct {
	net.Conn
	release func()
	asker   supervisor.Asker
	err     error  // why the asker is not known
	token   []byte // what its requests must bring; empty: the uid decides
}

func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// askerOf tells who connected. Over TCP nobody knows: the uid is -1, the name the address.
func askerOf(c net.Conn) (supervisor.Asker, error) {
	if c.LocalAddr().Network() != "unix" {
		return supervisor.Asker{UID: -1, Name: "tcp://" + c.RemoteAddr().String()}, nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return supervisor.Asker{}, err
	}
	var who supervisor.Asker
	var credErr error
	err = raw.Control(func(fd uintptr) { who.UID, who.PID, credErr = linux.PeerCredentials(fd) })
	who.Name = "another container"
	if who.PID > 0 { // 0: it has no pid in crank's pid namespace
		who.Name = commandName(who.PID)
	}
	return who, cmp.Or(err, credErr)
}

// commandName returns what the kernel calls a process, empty if it is gone already. A process
// chooses that name: what does not print is not passed on.
func commandName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSuffix(string(name), "\n"))
}
