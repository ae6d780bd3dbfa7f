// Package ports finds ports for tests that must know one before it is bound.
package ports

import (
	"math/rand/v2"
	"net"
	"strconv"
)

// Unused returns a port that nobody has now on 127.0.0.1, and that the kernel gives to nobody by itself: clients of other tests cannot
// have it in the next moment. It panics where there is none.
func Unused() string {
	for range 1000 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if l, err := net.Listen("tcp4", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	panic("no port is unused")
}
