package manifests

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/guard"
)

func TestMain(m *testing.M) { os.Exit(guard.Main(m)) }

// TestUpdateScript runs the sidecar's script, as its container does, against a crank that waits for
// a command. The apps are scripts, and ready once they run.
func TestUpdateScript(t *testing.T) {
	s := newSidecar(t)
	v1 := s.image("v1", "#!/bin/sh\nexec sleep 1000 # v1")
	v2 := s.image("v2", "#!/bin/sh\nexec sleep 1000 # v2")
	broken := s.image("broken", "#!/no/such/interpreter")

	first := s.update(v1)
	first.expect("update.sh: waiting: ") // for crank
	s.start()
	first.expect("generation 1 ready")
	first.end()

	s.update(v2).end("generation 1 exited")
	if got := s.ctl("ps"); !strings.Contains(got, "ready") || !strings.HasPrefix(strings.Split(got, "\n")[1], "2 ") {
		t.Errorf("v2 is not generation 2, and current:\n%s", got)
	}
	s.update(broken).end("does not serve", "generation 3 failed")
	s.update(broken).end("generation 3 failed") // is not tried again
	s.update(v1).end("generation 2 exited")     // back
	s.ctl("rollback")
	s.update(v1).end("generation 4 exited") // respects that
	if got := s.ctl("events"); strings.Contains(got, "generation 6") {
		t.Errorf("more generations than updates:\n%s", got)
	}

	for _, name := range []string{"v3", "v4", "v5", "v6", "v7", "v8"} {
		s.update(s.image(name, "#!/bin/sh\nexec sleep 1000 # "+name)).end("  run") // what an event has, after the old ones are removed
	}
	if files, err := filepath.Glob(s.shared + "/app-*"); err != nil || len(files) != 5 {
		t.Errorf("want the newest five versions: %v, %v", files, err)
	}
	if strays, err := filepath.Glob(s.shared + "/.new*"); err != nil || len(strays) > 0 {
		t.Errorf("left behind: %v, %v", strays, err)
	}
}

// sidecar is the pod: a directory for each of its volumes.
type sidecar struct {
	t                         *testing.T
	bin, run, shared, updater string
}

func newSidecar(t *testing.T) *sidecar {
	t.Helper()
	s := &sidecar{t: t, bin: t.TempDir(), run: t.TempDir(), shared: t.TempDir(), updater: t.TempDir()}
	build := exec.Command("go", "build", "-o", s.bin+"/", "./cmd/crank", "./cmd/crankctl")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return s
}

// image returns the path of the binary in the updater's image.
func (s *sidecar) image(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.updater, name)
	if err := os.WriteFile(path, []byte(content+"\n"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *sidecar) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CRANK") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "CRANK_CTL="+s.run+"/app.ctl", "CRANKCTL="+s.bin+"/crankctl", "SHARED="+s.shared)
	return cmd
}

// start starts crank, without a command.
func (s *sidecar) start() {
	s.t.Helper()
	cmd := s.command(s.bin+"/crank", "-prefix", s.run, "-settle", "0s")
	cmd.Stdout, cmd.Stderr = s.t.Output(), s.t.Output()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
}

func (s *sidecar) ctl(args ...string) string {
	s.t.Helper()
	out, err := s.command(s.bin+"/crankctl", args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("crankctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// update starts an updater container with this binary in its image.
func (s *sidecar) update(binary string) *updater {
	s.t.Helper()
	u := &updater{t: s.t, cmd: s.command("/bin/sh", deploy+"kustomize/overlays/sidecar/update.sh", binary)}
	out, in, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	u.cmd.Stdout, u.cmd.Stderr = in, in
	if err := u.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	in.Close()
	u.out, u.lines = out, bufio.NewScanner(out)
	return u
}

type updater struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   io.Closer
	lines *bufio.Scanner
}

// expect reads until a line holds want.
func (u *updater) expect(want string) {
	u.t.Helper()
	for u.lines.Scan() {
		u.t.Log(u.lines.Text())
		if strings.Contains(u.lines.Text(), want) {
			return
		}
	}
	u.t.Fatalf("the updater's log ended before %q", want)
}

// end stops the container as the kubelet does, after these words in its log, in this order; the
// last ones are an event, so that it follows those by then.
func (u *updater) end(words ...string) {
	u.t.Helper()
	for _, w := range words {
		u.expect(w)
	}
	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		u.t.Fatal(err)
	}
	for u.lines.Scan() {
		u.t.Log(u.lines.Text())
	}
	u.out.Close()
	u.cmd.Wait() // its exit code does not matter: restartPolicy is Always
}
