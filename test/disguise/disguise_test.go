package disguise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

// disguised is the variable that makes the test binary a disguised process.
const disguised = "DISGUISE_TEST"

func TestMain(m *testing.M) {
	if what := os.Getenv(disguised); what != "" {
		fmt.Println(Environ(what))
		_, _ = io.ReadAll(os.Stdin)
		return
	}
	os.Exit(guard.Main(m))
}

// TestEnviron: what other processes see. It fails on a kernel that does not allow the disguise, where the tests that use it prove nothing.
func TestEnviron(t *testing.T) {
	for what, want := range map[string]int{Huge: 1 << 20, Empty: 0} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), disguised+"="+what)
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		said, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || said != "<nil>\n" {
			t.Errorf("%s: %q, %v", what, said, err)
		}
		environ, err := os.Open(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, io.LimitReader(environ, 1<<20))
		if n != int64(want) || err != nil {
			t.Errorf("%s: %d bytes, %v; want %d", what, n, err, want)
		}
		environ.Close()
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}
