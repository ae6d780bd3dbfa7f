package sockets

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/go-logr/logr"
)

// TestPathOfAnotherOwner: where crank may not link a socket that it has given away, its second name is renamed back, once.
func TestPathOfAnotherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can give a socket away")
	}
	if sysctl("/proc/sys/fs/protected_hardlinks", 0) == 0 {
		t.Skip("NOT TESTED: fs.protected_hardlinks is off here")
	}
	path := shortDir(t) + "/web.sock"
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which has lost a capability, ends with the goroutine
		done <- func() error {
			if err := dropFowner(); err != nil {
				return err
			}
			a, err := ParseAddress("unix://" + path + "?user=12345")
			if err != nil {
				return err
			}
			set, err := Bind([]Address{a}, logr.Discard())
			if err != nil {
				return err
			}
			defer set.Close()
			for _, want := range []string{"", "no second name"} {
				if err := os.Remove(path); err != nil {
					return err
				}
				found := set.Tend()
				if len(found) != 1 || (found[0].Err == nil) != (want == "") || !strings.Contains(fmt.Sprint(found[0].Err), want) {
					return fmt.Errorf("found %v, want %q", found, want)
				}
				_, err := os.Lstat(path)
				if (err == nil) != (want == "") {
					return fmt.Errorf("afterwards: %w", errors.Join(err, fmt.Errorf("want %q", want)))
				}
				if err == nil && exchange(t, set.Sockets()[0]) != nil {
					return errors.New("nobody is served at the path")
				}
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// dropFowner takes CAP_FOWNER from the calling thread: capset(2).
func dropFowner() error {
	const version3, fowner = 0x20080522, 3
	header := struct {
		version uint32
		pid     int32
	}{version: version3}
	var data [2]struct{ effective, permitted, inheritable uint32 }
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return errno
	}
	data[0].effective &^= 1 << fowner
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return errno
	}
	return nil
}
