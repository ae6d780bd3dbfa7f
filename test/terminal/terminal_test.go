package terminal

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) }

// A shell has a real terminal: it has a size and an echo, the shell is in the foreground, and the keys send signals.
func TestShell(t *testing.T) {
	p := Open(t, true)
	if err := p.Resize(33, 77); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `stty size; trap 'echo got it; exit 7' INT; echo ready; cat`)
	if err := p.Start(cmd); err != nil {
		t.Fatal(err)
	}
	step := func(typed, want string) {
		t.Helper()
		if err := p.Type(typed); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Expect(want); err != nil {
			t.Fatalf("after %q: %v", typed, err)
		}
	}
	step("", "33 77\r\n")
	step("", "ready\r\n")
	step("hello\n", "hello\r\nhello\r\n") // the echo, and cat
	if pgrp, err := p.Foreground(); err != nil || pgrp != cmd.Process.Pid {
		t.Errorf("the foreground is %d, want %d, error %v", pgrp, cmd.Process.Pid, err)
	}
	step(CtrlC, "got it")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
	p.Slave.Close()
	<-p.Ended
	if seen := p.Seen(); strings.TrimSpace(seen) != "" {
		t.Errorf("unexpected output %q", seen)
	}
}

// The user hangs up, and the programs on the terminal end.
func TestHangUp(t *testing.T) {
	p := Open(t, false)
	cmd := exec.Command("sleep", "1000")
	if err := p.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitForeground("sleep"); err != nil {
		t.Fatal(err)
	}
	p.HangUp()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: hangup" {
		t.Errorf("it ended with %v", err)
	}
}
