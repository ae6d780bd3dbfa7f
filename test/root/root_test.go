package root

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) {
	if os.Getenv("ROOT_TEST") != "" {
		os.Stdout.WriteString(map[bool]string{true: "full", false: "less"}[Full()])
		os.Exit(0)
	}
	os.Exit(guard.Main(m))
}

// User 0 is not root in a user namespace that has no other user.
func TestUserNamespace(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "ROOT_TEST=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("NOT TESTED: user 0 of a user namespace: cannot create one: %v %s", err, out)
	}
	if !strings.HasSuffix(string(out), "less") {
		t.Errorf("it printed %q", out)
	}
	if os.Geteuid() != 0 && Full() {
		t.Error("an ordinary user counts as root")
	}
}
