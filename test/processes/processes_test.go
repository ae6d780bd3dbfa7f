package processes

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A child is seen as long as it is there, with what it was started with, and as a zombie until it is waited for.
func TestLooks(t *testing.T) {
	variable := "PROCESSES_TEST=" + t.TempDir()
	cmd := exec.Command("cat")
	cmd.Env = Environment(variable)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for deadline := time.Now().Add(30 * time.Second); !slices.Equal(With(variable), []int{pid}); { // execve(2) shows it late
		if time.Now().After(deadline) {
			t.Fatalf("with the variable are %v, want %d", With(variable), pid)
		}
		time.Sleep(time.Millisecond)
	}
	if got := "PROCESSES_TEST=" + Variable(pid, "PROCESSES_TEST"); got != variable {
		t.Errorf("it has %q, want %q", got, variable)
	}
	if got := Descriptors(pid); got < 3 {
		t.Errorf("it has %d descriptors", got)
	}
	if state, parent := Stat(pid); state == "" || parent != os.Getpid() || !slices.Equal(Children(parent), []int{pid}) {
		t.Errorf("it is in state %q, a child of %d, which has %v", state, parent, Children(parent))
	}
	stdin.Close()
	for deadline := time.Now().Add(30 * time.Second); !slices.Equal(Zombies(os.Getpid()), []int{pid}); {
		if time.Now().After(deadline) {
			t.Fatalf("zombies are %v, want %d", Zombies(os.Getpid()), pid)
		}
		time.Sleep(time.Millisecond)
	}
	cmd.Wait()
	if state, _ := Stat(pid); state != "" || len(Zombies(os.Getpid())) > 0 {
		t.Errorf("it is gone, and in state %q", state)
	}
}

// endless is an environment that never ends. All its variables have one length.
type endless struct {
	length, read int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
		if e.read++; e.read%(e.length+1) == 0 {
			p[i] = 0
		}
	}
	return len(p), nil
}

// An environment may have any length, and so may a variable. A variable is found after a long one, and lookup uses little memory.
func TestLongEnvironments(t *testing.T) {
	long := "LONG=" + strings.Repeat("x", 3*maxVariable)
	for environ, want := range map[string]string{
		"A=1\x00KEY=value\x00":                         "value",
		long + "\x00KEY=value\x00":                     "value",
		long + "KEY=no\x00KEY=value\x00":               "value",
		long[:maxVariable] + "KEY=no\x00KEY=value\x00": "value",
		"KEY=" + long + "\x00":                         "",
		"XKEY=no\x00KEY":                               "",
		"":                                             "",
	} {
		if got, ok := find(strings.NewReader(environ), "KEY"); got != want || ok != (want != "") {
			t.Errorf("%.20q: %q, %v, want %q", environ, got, ok, want)
		}
	}
	for _, length := range []int{0, 10, 2 * maxEnviron} {
		e := endless{length: length}
		if allocated := testing.AllocsPerRun(1, func() { find(io.LimitReader(&e, maxEnviron), "KEY") }); allocated > 10 {
			t.Errorf("variables of %d bytes: %v allocations", length, allocated)
		}
		if e.read > 2*maxEnviron {
			t.Errorf("variables of %d bytes: read %d bytes", length, e.read)
		}
	}
}

func TestReplaceProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "true")
	from, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	for _, works := range []bool{true, false} {
		err := ReplaceProgram(path, from, func(b []byte) []byte {
			if works {
				return b
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(path).Run(); (err == nil) != works {
			t.Errorf("run: %v, should work: %v", err, works)
		}
	}
}
