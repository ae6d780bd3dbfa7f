package faults

import (
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sendLingering sends messages to each generation. Each carries a socket on which close(2) would block, since its peer does not read.
func (c *cell) sendLingering() {
	c.Helper()
	addresses, err := filepath.Glob(filepath.Join(c.prefix, "*", "notify-*"))
	c.must(err)
	if len(addresses) == 0 {
		c.Fatal("no notify socket found")
	}
	// Stopped until all are sent, so that crank then holds the last descriptor of each socket.
	c.signal(syscall.SIGSTOP)
	c.eventually("crank is stopped", func() error { return inState(c.pid(), "T") })
	defer c.signal(syscall.SIGCONT)
	for _, address := range addresses {
		for i := range 5 {
			c.sendOneLingering(address, fmt.Sprint("STATUS=", i))
		}
	}
}

func (c *cell) sendOneLingering(address, text string) {
	c.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	c.must(err)
	defer l.Close()
	local, err := net.Dial("tcp", l.Addr().String())
	c.must(err)
	defer local.Close()
	remote, err := l.Accept()
	c.must(err)
	c.onUndo(func() { remote.Close() }) // close(2) then no longer blocks
	file, err := local.(*net.TCPConn).File()
	c.must(err)
	defer file.Close()
	local.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil { // until the socket and the peer's window are full
		_, err = local.Write(make([]byte, 1<<20))
	}
	fd := int(file.Fd())
	c.must(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	sender, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	c.must(err)
	defer unix.Close(sender)
	c.must(unix.Sendmsg(sender, []byte(text), unix.UnixRights(fd), &unix.SockaddrUnix{Name: address}, 0))
}
