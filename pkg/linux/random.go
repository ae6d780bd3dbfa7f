package linux

import (
	"crypto/rand"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RandomName returns a name that cannot be guessed, of the 26 letters and digits that rand.Text has. It asks the kernel by a system
// call: crypto/rand goes through the vDSO (runtime/vgetrandom_linux.go), which has to get memory for its state first, and crank
// needs one name to start.
func RandomName() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var b [26]byte
	n, _, _ := unix.RawSyscall(unix.SYS_GETRANDOM, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	if int(n) != len(b) { // a sandbox that does not know getrandom(2)
		rand.Read(b[:]) // never fails
	}
	for i := range b {
		b[i] = alphabet[b[i]%32]
	}
	return string(b[:])
}
