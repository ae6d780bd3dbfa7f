//go:build linux

package guard

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/processes"
)

// roleVariable tells TestRole what to do.
const roleVariable = "GUARD_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		grace = 200 * time.Millisecond
	}
	os.Exit(Main(m))
}

// TestRole is what the guarded runs of the other tests execute. It prints what they check, then "up".
func TestRole(t *testing.T) {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(os.TempDir(), "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if role != "clean" {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("sleep", cmd.Process.Pid)
	}
	for _, command := range []string{"umask", "grep SigIgn /proc/self/status | tr '\\t' ' '", "echo in $TMPDIR $XDG_RUNTIME_DIR"} {
		out, err := exec.Command("sh", "-c", command).Output()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s", out)
	}
	fmt.Println("run", os.Getpid())
	fmt.Println("up")
	switch role {
	case "fails":
		t.Error("on purpose")
	case "panics":
		panic("on purpose")
	case "waits":
		io.Copy(io.Discard, os.Stdin)
	}
}

// guarded is a guard with a guarded run.
type guarded struct {
	*testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	tmp   string
	said  map[string]string // what the run printed before it was up, by the first word of each line
	out   *bufio.Reader
	err   bytes.Buffer
}

// begin starts a guard from a shell script, in which "$@" executes it, and waits until the run is up.
func begin(t *testing.T, role, script string, flags ...string) *guarded {
	t.Helper()
	g := &guarded{T: t, tmp: t.TempDir(), said: map[string]string{}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g.cmd = exec.Command("sh", append([]string{"-c", script, "sh", self, "-test.run=^TestRole$"}, flags...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, variable+"=") {
			g.cmd.Env = append(g.cmd.Env, v)
		}
	}
	g.cmd.Env = append(g.cmd.Env, roleVariable+"="+role, "TMPDIR="+g.tmp)
	g.cmd.Stderr = &g.err
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if g.stdin, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.out = bufio.NewReader(out)
	for {
		line, err := g.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q\n%s", err, g.said, &g.err)
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if g.said[word] = rest; word == "up" {
			return g
		}
	}
}

// end waits for the end, which must match want, and checks that nothing is left.
func (g *guarded) end(want string) {
	g.Helper()
	rest, _ := io.ReadAll(g.out)
	g.cmd.Wait()
	if got := g.cmd.ProcessState.String(); got != want {
		g.Errorf("it ended with %q, want %q\n%s%s", got, want, rest, &g.err)
	}
	if entries, err := os.ReadDir(g.tmp); err != nil || len(entries) > 0 {
		g.Errorf("%v is left, error %v", entries, err)
	}
	for _, name := range []string{"sleep", "run"} {
		if pid, err := strconv.Atoi(g.said[name]); err == nil {
			if state, _ := processes.Stat(pid); state != "" {
				g.Errorf("%s (pid %d) is left", name, pid)
			}
		}
	}
}

const plain = `exec "$@"`

// However the tests end, they leave neither a file nor a process, not even one in its own session.
func TestLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		role  string
		flags []string
		end   string
	}{
		{"clean", nil, "exit status 0"},
		{"leaves a process", nil, "exit status 1"},
		{"fails", nil, "exit status 1"},
		{"panics", nil, "exit status 2"},
		{"waits", []string{"-test.timeout=5s"}, "exit status 2"},
	} {
		t.Run(c.role, func(t *testing.T) {
			t.Parallel()
			g := begin(t, c.role, plain, c.flags...)
			g.end(c.end)
			if said := strings.Contains(g.err.String(), "(sleep)"); said != (c.role == "leaves a process") {
				t.Errorf("it wrote\n%s", &g.err)
			}
		})
	}
}

// A signal ends everything, and then the guard, as its sender expects.
func TestSignals(t *testing.T) {
	for sig, end := range map[syscall.Signal]string{
		syscall.SIGINT: "signal: interrupt", syscall.SIGTERM: "signal: terminated", syscall.SIGHUP: "signal: hangup", syscall.SIGQUIT: "exit status 2",
	} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			g := begin(t, "waits", plain)
			if err := g.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			g.end(end)
			if stacks := strings.Contains(g.err.String(), "goroutine 1 "); stacks != (sig == syscall.SIGQUIT) {
				t.Errorf("it wrote\n%s", &g.err)
			}
		})
	}
}

// The guarded run does not outlive a guard that is killed.
func TestKilled(t *testing.T) {
	g := begin(t, "waits", plain)
	if sleep, err := strconv.Atoi(g.said["sleep"]); err == nil { // nothing else ends it
		defer syscall.Kill(sleep, syscall.SIGKILL)
	}
	pid, err := strconv.Atoi(g.said["run"])
	if err != nil {
		t.Fatal(err)
	}
	g.cmd.Process.Kill()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if state, _ := processes.Stat(pid); state == "" || state == "Z" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the guarded run is left")
		}
	}
	g.cmd.Wait()
}

// libc is the mask of signals 32 and 33: the race detector brings a C library, which sometimes ignores them for its own purposes.
const libc = 3 << 31

// The guarded run does not inherit the ignored signals, the umask and the TMPDIR that the guard was started with. A guard that nohup(1)
// started survives a hangup, and so does its run.
func TestStartedWith(t *testing.T) {
	g := begin(t, "waits", `umask 777; trap "" HUP INT QUIT TERM PIPE USR1 TSTP; exec "$@"`)
	if got, err := strconv.ParseUint(strings.TrimSpace(g.said["SigIgn:"]), 16, 64); err != nil || got&^libc != 0 {
		t.Errorf("its child processes ignore %x, error %v", got, err)
	}
	if _, ok := g.said["0022"]; !ok {
		t.Errorf("the umask is not 022: %q", g.said)
	}
	tmp, runtimeDir, _ := strings.Cut(g.said["in"], " ")
	if filepath.Dir(tmp) != g.tmp || tmp != runtimeDir {
		t.Errorf("TMPDIR is %q, XDG_RUNTIME_DIR %q, want one below %s", tmp, runtimeDir, g.tmp)
	}
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	sleep, _ := strconv.Atoi(g.said["sleep"])
	syscall.Kill(sleep, syscall.SIGKILL)
	g.stdin.Close()
	g.end("exit status 0")
}
