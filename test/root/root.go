// Package root tells tests whether they have root's privileges. In a container without capabilities, or in a user namespace with one
// user, user 0 does not have them.
package root

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// somebody is a user id that needs no account.
const somebody = 12345

// Full reports whether this process may give files away and start programs as another user.
var Full = sync.OnceValue(func() bool {
	if os.Geteuid() != 0 {
		return false
	}
	file, err := os.CreateTemp("", "root")
	if err != nil {
		return false
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	return file.Chown(somebody, somebody) == nil && cmd.Run() == nil
})

// Need skips the test, and says why, if this process may not do that.
func Need(t *testing.T) {
	t.Helper()
	if !Full() {
		t.Skipf("NOT TESTED: %s: only root can act as another user", t.Name())
	}
}
