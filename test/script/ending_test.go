package script

import (
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/processes"
)

// TestSignalsAtTheEnd: crank's exit code is the app's, whatever arrives while crank itself ends.
func TestSignalsAtTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 40 {
		crank := exec.Command("crank", "-ctl", "off", "-conf", "off", "--", "sh", "-c", `trap "" TERM; echo up; exit 7`)
		crank.Env = processes.Environment("CRANK_PREFIX=" + dir)
		out, err := crank.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := crank.Start(); err != nil {
			t.Fatal(err)
		}
		// Before that a signal may meet the Go runtime's own start.
		if _, err := io.ReadFull(out, make([]byte, len("up"))); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = crank.Wait()
			close(ended)
		}()
		kill := time.After(time.Minute)
		for running := true; running; {
			select {
			case <-ended:
				running = false
			case <-kill:
				_ = crank.Process.Kill()
			default:
				_ = crank.Process.Signal(syscall.SIGTERM) // fails once it has ended
			}
		}
		if code := crank.ProcessState.ExitCode(); code != 7 {
			t.Fatalf("got %v, want exit status 7", crank.ProcessState)
		}
	}
}
