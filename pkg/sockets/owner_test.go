package sockets

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/test/root"
)

// TestPathOfAnotherOwner: where crank may not link a socket that it gave away, it renames the second name back, once.
func TestPathOfAnotherOwner(t *testing.T) {
	root.Need(t)
	setpriv, err := exec.LookPath("setpriv")
	switch {
	case sysctl("/proc/sys/fs/protected_hardlinks", 0) == 0:
		t.Skip("NOT TESTED: a socket of another owner: fs.protected_hardlinks is off here")
	case err != nil:
		t.Skip("NOT TESTED: a socket of another owner: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := shortDir(t) + "/web.sock"
	command := exec.Command(setpriv, "--bounding-set", "-fowner", "--inh-caps", "-fowner", self, path)
	command.Env = []string{helperVariable + "=owner", "GORACE=atexit_sleep_ms=0"}
	if out, err := command.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// loseToAnother is the helper process: it prints what is wrong.
func loseToAnother(path string) error {
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
		if _, err := os.Lstat(path); (err == nil) != (want == "") {
			return fmt.Errorf("afterwards: %w", errors.Join(err, fmt.Errorf("want %q", want)))
		}
	}
	return nil
}
