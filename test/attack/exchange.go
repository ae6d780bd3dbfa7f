// Package attack does what a hostile neighbour would: one with the same volume, or with a user id of its own. Tests in all
// packages use it.
package attack

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Exchange gives two paths each other's names, as fast as it can until the test ends, as whoever can write to their directories
// could. The test fails if that was not possible.
func Exchange(t testing.TB, a, b string) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			select {
			case <-done:
				ended <- nil
				return
			default:
				err = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
		ended <- err
	}()
	t.Cleanup(func() {
		close(done)
		if err := <-ended; err != nil {
			t.Errorf("the attack has not taken place: %v", err)
		}
	})
}
