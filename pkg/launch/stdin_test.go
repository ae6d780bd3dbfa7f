package launch

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// TestIsOver: a process group is over when only zombies are left of it.
func TestIsOver(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	if isOver(group) {
		t.Error("a group with a living process is over")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if e, _ := proc.Lookup(group); e.Zombie {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	if !isOver(group) {
		t.Error("a group of which a zombie is left is not over")
	}
	cmd.Wait()
	if !isOver(group) {
		t.Error("a group of which nothing is left is not over")
	}
}
