package seccomp

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

const patience = time.Minute

// The test binary plays two other programs: one that puts a filter in place and executes another, and an app that
// tries what it must not.
const (
	filterVariable = "SECCOMP_TEST_FILTER" // a file with the filter
	tryVariable    = "SECCOMP_TEST_TRY"    // a file for the answers
)

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) {
	if name := os.Getenv(filterVariable); name != "" {
		fmt.Fprintln(os.Stderr, executeUnder(name))
		os.Exit(1)
	}
	if name := os.Getenv(tryVariable); name != "" {
		if err := tryForbidden(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(programs.Main(m, &bin))
}

// executeUnder executes os.Args[1:] with a filter, which the kernel keeps for all that they become and start.
func executeUnder(name string) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(content)/8)
	if err := binary.Read(bytes.NewReader(content), binary.NativeEndian, filter); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, filterVariable+"=") })
	runtime.LockOSThread() // the filter is this thread's, and execve ends the others
	install := func() syscall.Errno {
		_, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
		return errno
	}
	if errno := install(); errno == unix.EACCES { // not root: then it needs no_new_privs
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		if errno = install(); errno != 0 {
			return errno
		}
	} else if errno != 0 {
		return errno
	}
	runtime.KeepAlive(filter)
	return syscall.Exec(path, os.Args[1:], env)
}

// forbidden are calls that no server needs, and that the profile does not allow; the arguments are such that they would do
// nothing.
var forbidden = map[string][]uintptr{
	"unshare":           {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
	"clone NEWUSER":     {unix.SYS_CLONE, unix.CLONE_NEWUSER | unix.CLONE_THREAD}, // EINVAL without a filter
	"setns":             {unix.SYS_SETNS, ^uintptr(0), 0},
	"mount":             {unix.SYS_MOUNT, 0, 0, 0, 0, 0},
	"ptrace":            {unix.SYS_PTRACE, ^uintptr(0), 0, 0, 0},
	"process_vm_readv":  {unix.SYS_PROCESS_VM_READV, 0, 0, 0, 0, 0, 0},
	"pidfd_getfd":       {unix.SYS_PIDFD_GETFD, ^uintptr(0), 0, 0},
	"bpf":               {unix.SYS_BPF, ^uintptr(0), 0, 0},
	"perf_event_open":   {unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0},
	"io_uring_setup":    {unix.SYS_IO_URING_SETUP, 0, 0},
	"userfaultfd":       {unix.SYS_USERFAULTFD, ^uintptr(0)},
	"keyctl":            {unix.SYS_KEYCTL, ^uintptr(0), 0, 0, 0, 0},
	"add_key":           {unix.SYS_ADD_KEY, 0, 0, 0, 0, 0},
	"personality":       {unix.SYS_PERSONALITY, 0x0040000}, // ADDR_NO_RANDOMIZE
	"open_by_handle_at": {unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0), 0, 0},
	"chroot":            {unix.SYS_CHROOT, 0},
	"socket AF_PACKET":  {unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0},
	"socket AF_ALG":     {unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
	"socket AF_VSOCK":   {unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	"socket, 64 bits":   {unix.SYS_SOCKET, unix.AF_INET | 1<<32, unix.SOCK_STREAM, 0}, // the kernel takes 32 of them
	"clone3":            {unix.SYS_CLONE3, 0, 0},
}

// permitted are calls that stand beside those in a rule with arguments.
var permitted = map[string][]uintptr{
	"socket AF_UNIX":    {unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0},
	"socket AF_INET6":   {unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_STREAM, 0},
	"socket AF_NETLINK": {unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0},
	"getpid":            {unix.SYS_GETPID},
}

func tryForbidden(name string) error {
	answers := map[string]string{}
	for _, list := range []map[string][]uintptr{forbidden, permitted} {
		for what, call := range list {
			args := append(slices.Clone(call), make([]uintptr, 6)...)
			_, _, errno := syscall.RawSyscall6(args[0], args[1], args[2], args[3], args[4], args[5], args[6])
			answers[what] = unix.ErrnoName(errno)
		}
	}
	content, err := json.Marshal(answers)
	if err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o600)
}

// world is what a crank is started in.
type world struct {
	filter *specs.LinuxSeccomp // nil: none
	strict bool                // the filter is to refuse all that is forbidden
	pid1   bool                // in a pid namespace of its own
	trace  string              // the directory for strace; empty: without
}

// command returns a command in the world.
func (w world) command(t *testing.T, filter, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CRANK_") || strings.HasPrefix(v, "APP_") || strings.HasPrefix(v, "NOTIFY_")
	})
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	switch {
	case w.filter != nil:
		cmd.Path, cmd.Args = "/proc/self/exe", append([]string{os.Args[0], cmd.Path}, args...)
		cmd.Env = append(cmd.Env, filterVariable+"="+filter)
	case w.trace != "":
		script := fmt.Sprintf(`exec strace -D -ff -qq -o '%s/%s'.$$ -- "$0" "$@"`, w.trace, name)
		cmd.Args = append([]string{"sh", "-c", script, cmd.Path}, args...)
		cmd.Path = "/bin/sh"
	}
	return cmd
}

// tell is the story: swaps, failures, questions, signals and the end, as crank and crankctl do them.
func tell(t *testing.T, w world) {
	t.Helper()
	dir, err := os.MkdirTemp("", "seccomp-") // shorter than t.TempDir, for sun_path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	filter := filepath.Join(dir, "filter")
	if w.filter != nil {
		program, err := compile(w.filter)
		if err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		if err := errors.Join(binary.Write(&content, binary.NativeEndian, program), os.WriteFile(filter, content.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	last := filepath.Join(dir, "last")
	crank := w.command(t, filter, "crank", "-name", "web", "-prefix", dir, "-bind", "http=127.0.0.1:0", "-bind", "unix://"+dir+"/app.sock", "-bind", "udp://127.0.0.1:0",
		"-http", "127.0.0.1:0", "-no-new-privs", "-check", "true", "-settle", "50ms", "-termination-log", last, "-restart", "on-failure", "-stop", "5s", "-memory-check", "refuse", "--", filepath.Join(bin, "app"), "-orphans", "1", "-drain", "100ms")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	crank.Stdout, crank.Stderr = log, log
	if w.pid1 {
		crank.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	}
	if err := crank.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- crank.Wait() }()
	defer func() {
		_ = crank.Process.Kill() // where the story has not come to its end
		if t.Failed() {
			content, _ := os.ReadFile(log.Name())
			t.Logf("%s", content)
		}
	}()
	ctl := filepath.Join(dir, "web.ctl")
	client, err := control.NewClient(ctl, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	for {
		if ready, err := client.Ready(ctx); err == nil && ready.Ready {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("crank has ended: %v", err)
		case <-ctx.Done():
			t.Fatal("crank is not ready")
		case <-time.After(10 * time.Millisecond):
		}
	}
	pid := crank.Process.Pid
	if w.filter != nil {
		wantFiltered(t, pid)
	}
	if links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)); !slices.ContainsFunc(links, isPidfd) {
		t.Error("crank has no pidfd for the app")
	}
	ctlRun := func(code int, args ...string) string {
		t.Helper()
		cmd := w.command(t, filter, "crankctl", append([]string{"-ctl", ctl, "-timeout", "60"}, args...)...)
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != code) || err == nil && code != 0 {
			t.Errorf("crankctl %q: %v, want %d\n%s", args, err, code, out)
		}
		return string(out)
	}
	app := filepath.Join(bin, "app")
	ctlRun(0, "run", "-wait", "-env", "A=b", "--", app, "-body", "two")
	ctlRun(0, "reload")
	ctlRun(1, "run", "-wait", "--", app, "-exit", "3", "-stderr", "no such table")
	ctlRun(1, "run", "-wait", "--", "/no/such/program")
	ctlRun(0, "rollback")
	ctlRun(0, "ps", "-o", "wide")
	ctlRun(0, "info")
	ctlRun(0, "status")
	ctlRun(0, "ready")
	ctlRun(0, "events")
	ctlRun(0, "check")
	ctlRun(0, "kill", "-ready", "-signal", "WINCH")
	// replaced returns when another generation is current, and no candidate is left, after what do does. Both signals take
	// effect some time after they were sent.
	replaced := func(do func()) {
		t.Helper()
		before, err := client.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		do()
		for status := before; status.Current == before.Current || status.Candidate != 0; time.Sleep(time.Millisecond) {
			if status, err = client.Status(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	replaced(func() {
		if err := crank.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	})
	replaced(func() { ctlRun(0, "kill", "-ready", "-signal", "KILL") }) // -restart starts another
	ctlRun(0, "wait", "-ready")
	info, err := client.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantPages(t, info)
	if w.strict {
		wantForbidden(t, dir, ctlRun)
	}
	if err := crank.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("crank: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("crank does not end")
	}
	for _, name := range []string{last, filepath.Join(dir, "web.conf")} {
		if content, err := os.ReadFile(name); err != nil || len(content) == 0 {
			t.Errorf("%s: %q, %v", name, content, err)
		}
	}
	if out, err := w.command(t, filter, "crank", "-install", filepath.Join(dir, "installed")).CombinedOutput(); err != nil {
		t.Errorf("crank -install: %v\n%s", err, out)
	}
}

func isPidfd(link string) bool {
	target, _ := os.Readlink(link)
	return strings.Contains(target, "pidfd")
}

// wantFiltered wants crank and all below it to have a filter.
func wantFiltered(t *testing.T, pid int) {
	t.Helper()
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	pids := append(strings.Fields(string(children)), fmt.Sprint(pid))
	for _, pid := range pids {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err == nil && !strings.Contains(string(status), "Seccomp:\t2") {
			t.Errorf("process %s has no filter:\n%s", pid, status)
		}
	}
}

// wantPages asks the app and crank's own pages.
func wantPages(t *testing.T, info control.Info) {
	t.Helper()
	for uri, want := range map[string]string{
		info.Sockets[0].Bound + "/": "generation",
		info.HTTP + "/metrics":      "crank_listener_queue_limit_connections",
		info.HTTP + "/readyz":       "ok",
		info.HTTP + "/livez":        "ok",
	} {
		_, rest, _ := strings.Cut(uri, "://")
		response, err := http.Get("http://" + rest)
		if err != nil {
			t.Error(err)
			continue
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(content), want) {
			t.Errorf("%s: %s %q, %v", uri, response.Status, content, err)
		}
	}
	if conn, err := net.Dial("unix", strings.TrimPrefix(info.Sockets[1].Bound, "unix://")); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

// wantForbidden starts the app that tries what it must not.
func wantForbidden(t *testing.T, dir string, ctlRun func(int, ...string) string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "tried")
	ctlRun(1, "run", "-wait", "-env", tryVariable+"="+out, "--", self)
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var answers map[string]string
	if err := json.Unmarshal(content, &answers); err != nil {
		t.Fatal(err)
	}
	for what := range permitted {
		if answers[what] == "EPERM" {
			t.Errorf("%s is not allowed", what)
		}
	}
	for what := range forbidden {
		want := "EPERM"
		if what == "clone3" {
			want = "ENOSYS"
		}
		if answers[what] != want {
			t.Errorf("%s: %q, want %s", what, answers[what], want)
		}
	}
}

// Docker's profile for a container without capabilities, and the one that is shipped here.
func TestUnderFilter(t *testing.T) {
	for name, profile := range map[string]*specs.LinuxSeccomp{"RuntimeDefault": runtimeDefault(t), "crank.json": shipped(t)} {
		t.Run(name, func(t *testing.T) { tell(t, world{filter: profile, strict: name == "crank.json"}) })
		t.Run(name+" as PID 1", func(t *testing.T) {
			root.Need(t)
			tell(t, world{filter: profile, pid1: true})
		})
	}
}

// What servers are written in, at work under the shipped profile: files, threads, sockets, other processes.
func TestLanguagesUnderFilter(t *testing.T) {
	dir := t.TempDir()
	program, err := compile(shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	filter := filepath.Join(dir, "filter")
	if err := errors.Join(binary.Write(&content, binary.NativeEndian, program), os.WriteFile(filter, content.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"sh", "-c", "echo one | cat > x && mkdir d && mv x d && ls -l d | grep x && sleep 0 & wait"},
		{"python3", "-c", `import asyncio, multiprocessing, os, socket, subprocess, tempfile, threading
tempfile.TemporaryFile().write(b"x")
threads = [threading.Thread(target=lambda: subprocess.run(["true"], check=True)) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
asyncio.run(main())
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]`},
		{"node", "-e", `const http = require("http"), fs = require("fs"), child = require("child_process"), {Worker} = require("worker_threads");
child.execSync("true"); fs.writeFileSync("n", "x"); fs.watch(".").close();
new Worker("process.exit(0)", {eval: true}).on("exit", () => {
  const server = http.createServer((q, r) => r.end("x")).listen(0, () => http.get({port: server.address().port}, r => { r.resume(); r.on("end", () => process.exit(0)); }));
});`},
		{"ruby", "-rsocket", "-e", `s = TCPServer.new("127.0.0.1", 0); t = Thread.new { s.accept.close }; TCPSocket.new("127.0.0.1", s.addr[1]).read; t.join; system("true") or exit 1; Process.wait(fork { exit 0 })`},
		{"java", "-version"},
		{"nginx", "-v"},
		{"go", "version"},
	} {
		t.Run(argv[0], func(t *testing.T) {
			if err := programs.Works(argv[0]); err != nil {
				t.Skipf("NOT TESTED: %s under the profile: %v", argv[0], err)
			}
			cmd := exec.Command("/proc/self/exe", argv...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), filterVariable+"="+filter)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
