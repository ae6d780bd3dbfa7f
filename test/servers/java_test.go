package servers

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	crank "github.com/crankctl/crank/test/instance"
)

// TestThreadDump: on QUIT a JVM prints its threads (java(1), kill -3) and keeps running, and so does crank with -profile java.
func TestThreadDump(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("NOT TESTED: java is not installed")
	}
	i := crank.Start(t, bin, []string{"-profile", "java", "-ready", "notify"}, java, "../../deploy/recipes/java/Server.java")
	for range 2 {
		if err := syscall.Kill(i.PID(), syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(i.Log(), "Full thread dump"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no thread dump")
		}
	}
	i.Crankctl("reload") // refused if crank is stopping
	i.Terminate()
	i.Wait()
}
