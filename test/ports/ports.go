// Package ports finds ports for tests that must know one before it is bound.
package ports

import (
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Unused returns a TCP and UDP port that nobody has now on 127.0.0.1, and that the kernel gives to nobody by itself: clients of other tests
// cannot have it in the next moment. It panics where there is none.
func Unused() string {
	for range 1000 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if isUnused(port) {
			return port
		}
	}
	panic("no port is unused")
}

// isUnused binds the port for a moment. No process is forked meanwhile: it would hold the port too, until its exec.
func isUnused(port string) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	defer l.Close()
	datagrams, err := net.ListenPacket("udp4", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	datagrams.Close()
	return true
}
