package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/output"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/pkg/profile"
	"github.com/crankctl/crank/pkg/sockets"
	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/test/attack"
	"github.com/crankctl/crank/test/leak"
)

// The children are shells. What they print goes to a file; what they are to do next comes by
// files as well, since the launcher gives them this process's stdin.

func TestMain(m *testing.M) {
	for variable, play := range map[string]func(string) error{disguised: beDisguised, daemonised: beDaemon} {
		if what := os.Getenv(variable); what != "" {
			if err := play(what); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	if err := errors.Join(linux.CloseOnExecFrom(3), linux.SetSubreaper()); err != nil {
		panic(err)
	}
	os.Exit(leak.Main(m))
}

const patience = time.Minute

type said struct {
	generation int
	message    notify.Message
}

// bench is a launcher under test.
type bench struct {
	*Launcher
	t       *testing.T
	dir     string
	notices chan said
	woken   chan struct{}
}

func newBench(t *testing.T, change func(*Config), binds ...string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), notices: make(chan said), woken: make(chan struct{}, 1)}
	for _, dir := range []string{b.dir, filepath.Dir(b.dir)} { // so that notify sockets have paths, also as root
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	var addresses []sockets.Address
	for _, bind := range binds {
		a, err := sockets.ParseAddress(bind)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, a)
	}
	set, err := sockets.Bind(addresses, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	notifyDir, err := NotifyDir(b.dir, "web")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Name: "web", NotifyDir: notifyDir, Profile: profiled(t, profile.Default), ListenPID: true, Output: output.Auto, KeepStderr: true,
		Environ: []string{"PATH=" + os.Getenv("PATH")}, Log: logr.Discard(),
	}
	cfg.Stdout, cfg.Stderr = output.Destinations(stdout, stderr)
	if change != nil {
		change(&cfg)
	}
	b.Launcher, err = New(cfg, set, func(n int, m notify.Message) { b.notices <- said{n, m} }, func() {
		select {
		case b.woken <- struct{}{}:
		default: // it must not block
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close(patience)
		set.Close()
		if _, err := os.Stat(notifyDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory of the notify sockets is still there: %v", err)
		}
	})
	return b
}

func profiled(t *testing.T, name string) profile.Profile {
	t.Helper()
	p, ok := profile.Find(name)
	if !ok {
		t.Fatalf("no profile %s", name)
	}
	return p
}

// shell launches a script. OUT in it is a file, read by lines.
func (b *bench) shell(n int, script string, env ...string) (*child, *lines) {
	b.t.Helper()
	out := filepath.Join(b.dir, fmt.Sprintf("out%d", n))
	if err := syscall.Mkfifo(out, 0o600); err != nil {
		b.t.Fatal(err)
	}
	f, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	c, err := b.Launch(supervisor.ID{Generation: n, Slot: 10 + n}, supervisor.Command{Argv: []string{"sh", "-c", script}, Env: append(env, "OUT="+out)}, n > 1)
	if err != nil {
		b.t.Fatal(err)
	}
	ch := c.(*child)
	b.t.Cleanup(func() { b.end(ch) })
	return ch, &lines{b.t, f, bufio.NewReader(f)}
}

type lines struct {
	t *testing.T
	f *os.File
	r *bufio.Reader
}

func (l *lines) next() string {
	l.t.Helper()
	if err := l.f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		l.t.Fatal(err)
	}
	line, err := l.r.ReadString('\n')
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// until reads up to a line that is "." and returns what was before.
func (l *lines) until() []string {
	l.t.Helper()
	var all []string
	for line := l.next(); line != "."; line = l.next() {
		all = append(all, line)
	}
	return all
}

// end kills a child, if it still runs, and releases what is held for it.
func (b *bench) end(ch *child) {
	if b.children[ch.generation] == nil {
		return
	}
	if !ch.main.IsGone() {
		if err := ch.Signal(syscall.SIGKILL, true); err != nil {
			b.t.Error(err)
		}
		b.exit(ch)
	}
	ch.Close()
}

// exit waits for the end of a child.
func (b *bench) exit(ch *child) proc.Exit {
	b.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		exits, _ := b.Reap()
		for _, e := range exits {
			if e.PID == ch.PID() {
				ch.Gone()
				return e
			}
		}
	}
	b.t.Fatal("the child does not end")
	return proc.Exit{}
}

func TestEnvironment(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Ctl = "/run/crank/web.ctl"
		c.Settings = []string{"CRANK_BIND", "CRANK_NAME", "CRANK_CTL"}
		c.Environ = append(c.Environ, "LISTEN_FDS=9", "LISTEN_PID=1", "LISTEN_PIDFDID=4", "NOTIFY_SOCKET=/somebody", "WATCHDOG_USEC=5",
			"WATCHDOG_PID=6", "CRANK_BIND=:80", "CRANK_NAME=outer", "CRANK_SLOT=9", "CRANK_SERVICE_HOST=10.0.0.1", "LISTEN_ADDR=:80", "NOTIFY_EMAIL=x", "A=1", "B=2")
	}, "http=127.0.0.1:0", "tcp4://127.0.0.1:0")
	ch, out := b.shell(7, `env > "$OUT"; echo . > "$OUT"; read forever`, "A-", "B=3", "LISTEN_FDS=mine", "CRANK_SLOT=mine")
	got := map[string]string{}
	for _, line := range out.until() {
		key, value, _ := strings.Cut(line, "=")
		if _, twice := got[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		got[key] = value
	}
	for key, want := range map[string]string{
		"LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:unknown", "LISTEN_PID": strconv.Itoa(ch.PID()), "NOTIFY_FD": "5",
		"NOTIFY_SOCKET": ch.receiver.Address(), "CRANK_NAME": "web", "CRANK_GENERATION": "7", "CRANK_SLOT": "17", "CRANK_CTL": "/run/crank/web.ctl",
		"CRANK_SERVICE_HOST": "10.0.0.1", "LISTEN_ADDR": ":80", "NOTIFY_EMAIL": "x", "B": "3",
	} {
		if got[key] != want {
			t.Errorf("%s=%s, want %s", key, got[key], want)
		}
	}
	for _, key := range []string{"LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID", "CRANK_BIND", "A"} {
		if value, ok := got[key]; ok {
			t.Errorf("%s=%s was passed on", key, value)
		}
	}
}

// TestDirectory: a command without a directory starts in that of the configuration, which is entered by name and set as PWD.
func TestDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(dir, "current")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "1"), 0o755), os.Mkdir(filepath.Join(dir, "2"), 0o755), os.Symlink("1", current)); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *Config) { c.Dir, c.Environ = current, append(c.Environ, "PWD=/nowhere") })
	for _, c := range []struct {
		command supervisor.Command
		want    []string
	}{
		{supervisor.Command{}, []string{"PWD=" + current, dir + "/1"}},
		{supervisor.Command{Dir: dir, Env: []string{"A=b"}}, []string{"PWD=" + dir, dir}},
		{supervisor.Command{Env: []string{"PWD=/mine"}}, []string{"PWD=/mine", dir + "/1"}},
		{supervisor.Command{Env: []string{"PWD-"}}, []string{dir + "/1"}},
	} {
		// The shell corrects a wrong PWD in its own environment.
		if got := b.words(b.helper(b.Check, 1, c.command, "tr '\\0' '\\n' </proc/$$/environ | grep ^PWD=; readlink /proc/self/cwd")); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c.command, got, c.want)
		}
	}
	if err := errors.Join(os.Remove(current), os.Symlink("2", current)); err != nil {
		t.Fatal(err)
	}
	if got := b.words(b.helper(b.Probe, 1, supervisor.Command{}, "readlink /proc/self/cwd >&2")); !slices.Equal(got, []string{dir + "/2"}) {
		t.Errorf("after the symlink leads elsewhere: %q", got)
	}
}

// TestWatchdogVariables: WATCHDOG_PID goes with LISTEN_PID, since who turns that off has a wrapper that forks.
func TestWatchdogVariables(t *testing.T) {
	for _, pid := range []bool{true, false} {
		b := newBench(t, func(c *Config) { c.ListenPID, c.Watchdog = pid, 1500*time.Millisecond })
		ch, out := b.shell(1, `env > "$OUT"; echo . > "$OUT"`)
		env := out.until()
		if !slices.Contains(env, "WATCHDOG_USEC=1500000") || slices.Contains(env, "WATCHDOG_PID="+strconv.Itoa(ch.PID())) != pid {
			t.Errorf("%v: got %q", pid, env)
		}
		b.end(ch) // the next bench would take its status
	}
}

func TestNoSocketsNoListenVariables(t *testing.T) {
	b := newBench(t, nil)
	_, out := b.shell(1, `env > "$OUT"; echo . > "$OUT"`)
	env := out.until()
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "LISTEN_") }) || !slices.Contains(env, "NOTIFY_FD=3") {
		t.Errorf("got %q", env)
	}
}

// TestProfile: the server's own variables have the addresses of the sockets, and none of a port 0. What
// was given, for crank or for the command, is left alone.
func TestProfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	binds := []string{"tcp4://127.0.0.1:0", "tcp6://[::1]:0", "unix://" + path}
	for _, test := range []struct {
		profile, environ, change string
		want                     []string // PORT4, PORT6 and CHILD are filled in
	}{
		{"systemd", "LISTEN_FDS=7", "", []string{"LISTEN_FDNAMES=unknown:unknown:unknown", "LISTEN_FDS=3", "LISTEN_PID=CHILD"}},
		{"none", "LISTEN_FDS=7", "", nil},
		{"nginx", "LISTEN_PID=7", "", []string{"NGINX=3;4;5;"}},
		{"nginx", "NGINX=4;", "", []string{"NGINX=4;"}},
		{"nginx", "NGINX=4;", "NGINX=5;", []string{"NGINX=5;"}},
		{"nginx", "NGINX=4;", "NGINX-", []string{"NGINX=3;4;5;"}},
		{"puma", "", "PUMA_INHERIT_2=5:unix:///other", []string{"PUMA_INHERIT_0=3:tcp://127.0.0.1:PORT4",
			"PUMA_INHERIT_1=4:tcp://[::1]:PORT6", "PUMA_INHERIT_2=5:unix:///other"}},
		{"php-fpm", "", "", []string{"FPM_SOCKETS=127.0.0.1:PORT4=3,::1:PORT6=4," + path + ".fpm=5"}},
		{"server-starter", "SERVER_STARTER_PORT=80=7 SERVER_STARTER_GENERATION=4", "", []string{"SERVER_STARTER_GENERATION=1",
			"SERVER_STARTER_PORT=127.0.0.1:PORT4=3;[::1]:PORT6=4;" + path + "=5"}},
		{"server-starter", "", "SERVER_STARTER_GENERATION=4", []string{"SERVER_STARTER_GENERATION=4",
			"SERVER_STARTER_PORT=127.0.0.1:PORT4=3;[::1]:PORT6=4;" + path + "=5"}},
	} {
		t.Run(test.profile, func(t *testing.T) {
			b := newBench(t, func(c *Config) {
				c.Profile = profiled(t, test.profile)
				c.Environ = append(c.Environ, strings.Fields(test.environ)...)
			}, binds...)
			ch, out := b.shell(1, `env | grep -E "^(LISTEN|NGINX|FPM|PUMA|SERVER)_?" | sort > "$OUT"; echo . > "$OUT"; read forever`, strings.Fields(test.change)...)
			held := b.sockets.Sockets()
			fill := strings.NewReplacer("PORT4", port(held[0]), "PORT6", port(held[1]), "CHILD", strconv.Itoa(ch.PID()))
			var want []string
			for _, entry := range test.want {
				want = append(want, fill.Replace(entry))
			}
			if got := out.until(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func port(s *sockets.Socket) string {
	return s.Bound()[strings.LastIndex(s.Bound(), ":")+1:]
}

// TestDescriptors looks at the child from outside: its sockets, its notify socket, and no more.
func TestDescriptors(t *testing.T) {
	b := newBench(t, nil, "127.0.0.1:0", "udp://127.0.0.1:0")
	ch, _ := b.shell(2, `kill -STOP $$`)
	awaitStopped(t, ch.PID())
	target := func(pid string, fd int) string {
		s, _ := os.Readlink(fmt.Sprintf("/proc/%s/fd/%d", pid, fd))
		return s
	}
	pid := strconv.Itoa(ch.PID())
	entries, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 6 {
		t.Errorf("%d descriptors, want 0 to 5", len(entries))
	}
	for i, s := range b.sockets.Sockets() {
		if got, want := target(pid, 3+i), target("self", s.FD()); got != want {
			t.Errorf("descriptor %d is %s, want %s", 3+i, got, want)
		}
	}
	if got, want := target(pid, 0), target("self", 0); got != want {
		t.Errorf("stdin is %s, want %s", got, want)
	}
	if got := target(pid, 5); !strings.HasPrefix(got, "socket:") {
		t.Errorf("NOTIFY_FD is %s", got)
	}
}

// awaitStopped waits until a child has stopped itself: a shell has closed by then what it needs to start.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(stat), ") T ") {
			return
		}
	}
	t.Fatal("the child does not stop")
}

func TestStdinSocket(t *testing.T) {
	b := newBench(t, func(c *Config) { c.StdinSocket = true }, "127.0.0.1:0")
	ch, _ := b.shell(1, `kill -STOP $$`)
	awaitStopped(t, ch.PID())
	read := func(fd int) string {
		s, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", ch.PID(), fd))
		return s
	}
	if read(0) != read(3) || !strings.HasPrefix(read(0), "socket:") {
		t.Errorf("0 is %s, 3 is %s", read(0), read(3))
	}
}

// TestLastWords pins that what an app said before it ended is handled before its end.
func TestLastWords(t *testing.T) {
	b := newBench(t, nil, "127.0.0.1:0")
	for n := 1; n <= 20; n++ {
		ch, _ := b.shell(n, `echo "X_CRANK_FAILED=no database" >&"$NOTIFY_FD"; exit 3`)
		for {
			if exits, _ := b.Reap(); len(exits) > 0 {
				t.Fatalf("the end came before the reason: %v", exits)
			}
			select {
			case s := <-b.notices:
				if s.generation != n || s.message.Failed != "no database" {
					t.Fatalf("got %+v", s)
				}
			case <-time.After(time.Millisecond):
				continue
			}
			break
		}
		if e := b.exit(ch); e.Code != 3 {
			t.Fatalf("got %v", e)
		}
		ch.Close()
		select {
		case <-b.woken:
		default: // its end was not held back
		}
	}
}

func TestLaunchFails(t *testing.T) {
	b := newBench(t, nil, "127.0.0.1:0")
	count := func() int { e, _ := os.ReadDir("/proc/self/fd"); return len(e) }
	before := count()
	for range 20 {
		if err := b.failure(b.Launch(supervisor.ID{Generation: 1}, supervisor.Command{Argv: []string{"/no/such/program"}}, false)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
		b.closing.Wait()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}

// failure waits for the exec error of a process, and releases what is held for it.
func (b *bench) failure(c supervisor.Child, err error) error {
	b.t.Helper()
	if err != nil {
		return err
	}
	ch := c.(*child)
	defer ch.Close()
	select {
	case <-b.woken:
	case <-time.After(patience):
		b.t.Fatal("no wake-up at the end of its exec")
	}
	if ch.Executed() {
		b.t.Error("it was executed")
	}
	return b.exit(ch).Failed
}

// TestExecHangs: a write lease on an interpreter makes the exec hang. Nothing in crank waits for it, and the generation exists and can be
// signalled.
func TestExecHangs(t *testing.T) {
	b := newBench(t, nil, "127.0.0.1:0")
	interpreter, script := filepath.Join(t.TempDir(), "sh"), filepath.Join(t.TempDir(), "script")
	shell, err := os.ReadFile("/bin/sh")
	if err = errors.Join(err, os.WriteFile(interpreter, shell, 0o755), os.WriteFile(script, []byte("#!"+interpreter+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(interpreter)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The holder does not notice that others want the file: Go ignores SIGIO.
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), syscall.F_SETLEASE, syscall.F_WRLCK); errno != 0 {
		t.Fatal(errno)
	}
	command := supervisor.Command{Argv: []string{script}}
	for name, start := range map[string]func() (supervisor.Child, error){
		"the app": func() (supervisor.Child, error) { return b.Launch(supervisor.ID{Generation: 1}, command, false) },
		"a check": func() (supervisor.Child, error) {
			return b.Check(supervisor.ID{Generation: 1}, command, command.Argv, false)
		},
		"a probe": func() (supervisor.Child, error) {
			return b.Probe(supervisor.ID{Generation: 1}, command, command.Argv, false)
		},
	} {
		c, err := start()
		if err != nil {
			t.Fatal(err)
		}
		ch := c.(*child)
		if exits, none := b.Reap(); ch.Executed() || none || len(exits) > 0 {
			t.Errorf("%s: executed %v, ended %v", name, ch.Executed(), exits)
		}
		if members := b.Members(1); name != "a probe" && !slices.Equal(members, []int{ch.PID()}) {
			t.Errorf("%s: members %d", name, members)
		}
		if err := ch.Signal(syscall.SIGTERM, true); err != nil {
			t.Error(err)
		}
		if e := b.exit(ch); e.Signal != syscall.SIGTERM || e.Failed != nil || ch.Executed() {
			t.Errorf("%s: got %+v, executed %v", name, e, ch.Executed())
		}
		ch.Close()
	}
}

// A word that is hidden is hidden in what says that it cannot be executed, too.
func TestRedactedErrors(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Redact = func(argv []string) []string { return []string{strings.ReplaceAll(argv[0], "hunter2", "***")} }
	})
	for _, program := range []string{"hunter2", "/no/hunter2", "/dev/null/hunter2", "/proc/self/../hunter2"} {
		command := supervisor.Command{Argv: []string{program}}
		err := b.failure(b.Launch(supervisor.ID{Generation: 1}, command, false))
		checkErr := b.failure(b.Check(supervisor.ID{Generation: 1}, command, command.Argv, false))
		probeErr := b.failure(b.Probe(supervisor.ID{Generation: 1}, command, command.Argv, false))
		for _, err := range []error{err, checkErr, probeErr} {
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "***") {
				t.Errorf("%s: %v", program, err)
			}
		}
	}
}

// TestMembers: the generation's processes are found whatever they did to hide.
func TestMembers(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(1, `
		sleep 1000 &
		echo $! > "$OUT"
		setsid sh -c 'sleep 1000 & echo $! > "$OUT"; exit 0' &
		wait $!
		setsid sleep 1000 & echo $! > "$OUT"
		echo . > "$OUT"; read forever; kill -STOP $$`)
	var want []int
	for _, line := range out.until() {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, pid)
	}
	other, _ := b.shell(2, "kill -STOP $$")
	slices.Sort(want)
	found := func() []int {
		var got []int
		for _, e := range ch.members() {
			got = append(got, e.PID)
		}
		slices.Sort(got)
		return got
	}
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := len(other.members()); got != 0 {
		t.Errorf("generation 2 has %d others", got)
	}

	if err := ch.Signal(syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	b.exit(ch)
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("after the main process has ended: got %v, want %v", got, want)
	}
	if n := b.Strays(0); n != 0 {
		t.Errorf("%d strays, although all belong to a generation", n)
	}
	ch.Others(syscall.SIGKILL)
	for deadline := time.Now().Add(patience); ch.Others(0) > 0; b.Reap() {
		if time.Now().After(deadline) {
			t.Fatal("they do not end")
		}
	}
}

func TestStrays(t *testing.T) {
	b := newBench(t, nil)
	ch, out := b.shell(1, `env -u CRANK_GENERATION setsid sh -c 'sleep 1000 & echo $! > "$OUT"'; exit 0`)
	stray, err := strconv.Atoi(out.next())
	if err != nil {
		t.Fatal(err)
	}
	b.exit(ch)
	ch.Close()
	if n := b.Strays(0); n != 1 {
		t.Errorf("%d strays, want 1", n)
	}
	if n := b.Strays(syscall.SIGTERM); n != 1 {
		t.Errorf("%d strays signalled", n)
	}
	for deadline := time.Now().Add(patience); ; {
		exits, none := b.Reap()
		for _, e := range exits {
			if e.PID == stray && e.Signal != syscall.SIGTERM {
				t.Errorf("got %v", e)
			}
		}
		if none {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	if n := b.Strays(0); n != 0 {
		t.Errorf("%d strays are left", n)
	}
}

// TestSenders: a message counts if its sender is known to belong to the generation, or can no longer be identified.
func TestSenders(t *testing.T) {
	b := newBench(t, nil)
	one, out := b.shell(1, `sleep 1000 & echo $! > "$OUT"; kill -STOP $$`)
	helper, err := strconv.Atoi(out.next())
	if err != nil {
		t.Fatal(err)
	}
	two, _ := b.shell(2, "kill -STOP $$")
	dead, err := proc.Start(proc.Spec{Path: "/bin/true", Argv: []string{"true"}, Files: []int{0, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	b.exit(&child{l: b.Launcher, launched: dead, main: dead})
	zombie, err := proc.Start(proc.Spec{Path: "/bin/true", Argv: []string{"true"}, Files: []int{0, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for runs(zombie.PID()) {
		time.Sleep(time.Millisecond)
	}
	for _, c := range []struct {
		name       string
		generation int
		pid        int
		refused    bool // on a socket with an address
	}{
		{"the main process", 1, one.PID(), false},
		{"a helper of it", 1, helper, false},
		{"dead already", 1, dead.PID(), false},
		{"ended, and not waited for", 1, zombie.PID(), false},
		{"nobody's", 1, os.Getppid(), true},
		{"another generation", 1, two.PID(), true},
		{"another generation's helper", 2, helper, true},
		{"crank itself", 1, os.Getpid(), true},
		{"another pid namespace", 1, 0, true},
	} {
		if why := b.strange(c.generation, notify.Sender{PID: c.pid, UID: os.Geteuid()}); (why != "") != c.refused {
			t.Errorf("%s: %q", c.name, why)
		}
		why := b.strange(c.generation, notify.Sender{PID: c.pid, UID: os.Geteuid(), Inherited: true})
		if refused := c.refused && c.name != "nobody's"; (why != "") != refused {
			t.Errorf("%s, on the pair: %q", c.name, why)
		}
	}

	b.exit(&child{l: b.Launcher, launched: zombie, main: zombie})

	// Any process can find an abstract address: a sender that has ended must have been crank's own user, or root.
	const other = 12345
	for _, c := range []struct {
		name    string
		from    notify.Sender
		refused bool
	}{
		{"the main process", notify.Sender{PID: one.PID(), UID: other, Abstract: true}, false},
		{"a helper of it", notify.Sender{PID: helper, UID: other, Abstract: true}, false},
		{"dead already", notify.Sender{PID: dead.PID(), UID: other, Abstract: true}, true},
		{"dead already, by the secret path", notify.Sender{PID: dead.PID(), UID: other}, false},
		{"dead already, of crank's own user", notify.Sender{PID: dead.PID(), UID: os.Geteuid(), Abstract: true}, false},
		{"dead already, root's", notify.Sender{PID: dead.PID(), UID: 0, Abstract: true}, false},
		{"nobody's", notify.Sender{PID: os.Getppid(), UID: other, Abstract: true}, true},
		{"nobody's, of crank's own user", notify.Sender{PID: os.Getppid(), UID: os.Geteuid(), Abstract: true}, true},
	} {
		if why := b.strange(1, c.from); (why != "") != c.refused {
			t.Errorf("%s, by an abstract address: %q", c.name, why)
		}
	}
}

func TestObserve(t *testing.T) {
	type seen struct {
		keys    string
		refused bool
	}
	observed := make(chan seen, 8)
	b := newBench(t, func(c *Config) {
		c.Observe = func(keys []string, refused bool) { observed <- seen{strings.Join(keys, " "), refused} }
	})
	ch, _ := b.shell(1, `printf 'STATUS=hello\nSTATUS=again\nERRNO=x\nCOLOUR=blue\nREADY=1' >&"$NOTIFY_FD"; kill -STOP $$`)
	<-b.notices
	if got := <-observed; got != (seen{"STATUS READY", false}) {
		t.Errorf("from the app: %+v", got)
	}
	conn, err := net.Dial("unixgram", ch.receiver.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("READY=1")); err != nil { // this process is crank
		t.Fatal(err)
	}
	if got := <-observed; got != (seen{"READY", true}) {
		t.Errorf("from another: %+v", got)
	}
}

func TestOOMScore(t *testing.T) {
	b := newBench(t, nil, "127.0.0.1:0")
	score := func(pid int) string {
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(s))
	}
	first, _ := b.shell(1, "kill -STOP $$")
	if got := score(first.PID()); got != b.oomScore() {
		t.Errorf("the first generation has %s", got)
	}
	ch, out := b.shell(2, `sleep 1000 & echo $! > "$OUT"; kill -STOP $$`)
	helper, err := strconv.Atoi(out.next())
	if err != nil {
		t.Fatal(err)
	}
	if got := score(ch.PID()); got != "1000" {
		t.Errorf("a candidate has %s", got)
	}
	ch.Promote()
	for _, pid := range []int{ch.PID(), helper} {
		if got := score(pid); got != b.oomScore() {
			t.Errorf("once current: %s, want %s", got, b.oomScore())
		}
	}
}

func TestTail(t *testing.T) {
	b := newBench(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b.cfg.Stderr, _ = output.Destinations(int(w.Fd()), int(w.Fd()))
	ch, _ := b.shell(1, "echo one >&2; echo two >&2; exit 1")
	b.exit(ch)
	tail := ch.Tail()
	if !slices.Equal(tail.Lines, []string{"one", "two"}) || tail.Note != "" {
		t.Errorf("got %+v", tail)
	}
	ch.Close()
	<-ch.streams.Done() // the tail may be there before it is passed on
	w.Close()
	if copied, err := io.ReadAll(r); err != nil || string(copied) != "one\ntwo\n" {
		t.Errorf("crank's own stderr got %q, %v", copied, err)
	}
}

func TestNotifyDir(t *testing.T) {
	prefix := t.TempDir()
	dir, err := NotifyDir(prefix, "web")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	listen := func(name string) *net.UnixConn {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	live, dead := listen("live"), listen("dead")
	defer live.Close()
	// What a killed crank leaves: the name without the socket.
	if err := os.Rename(filepath.Join(dir, "dead"), filepath.Join(dir, "left")); err != nil {
		t.Fatal(err)
	}
	dead.Close()
	if _, err := NotifyDir(prefix, "web"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "live" {
		t.Errorf("left: %v %v", entries, err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(prefix, "evil.notify")); err != nil {
		t.Fatal(err)
	}
	if _, err := NotifyDir(prefix, "evil"); err == nil {
		t.Error("a symlink was used")
	}
}

// A directory that is not as crank leaves it belongs to somebody else: it is not used, changed or removed.
func TestNotifyDirOfSomebodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		mode os.FileMode
		file string
	}{
		"a mode of its own, empty":  {0o750, ""},
		"a mode of its own":         {0o700, "notes"},
		"the same mode, and a file": {0o711, "notes"},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := t.TempDir()
			dir := filepath.Join(prefix, "web.notify")
			if err := errors.Join(os.Mkdir(dir, c.mode), os.Chmod(dir, c.mode)); err != nil {
				t.Fatal(err)
			}
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := NotifyDir(prefix, "web"); err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("error is %v", err)
			}
			removeNotifyDir(dir)
			info, err := os.Stat(dir)
			if err != nil || info.Mode().Perm() != c.mode {
				t.Errorf("%v, %v", info, err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != len(strings.Fields(c.file)) {
				t.Errorf("left: %v", entries)
			}
		})
	}
	prefix := t.TempDir() // with fsGroup
	dir, err := NotifyDir(prefix, "web")
	if err := errors.Join(err, os.Chmod(dir, 0o771|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	if _, err := NotifyDir(prefix, "web"); err != nil {
		t.Error(err)
	}
	removeNotifyDir(dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("crank's own was not removed: %v", err)
	}
}

// TestClosedDirectory: all directories on the way count, including those that symbolic links lead through.
func TestClosedDirectory(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	for _, dir := range []string{top, filepath.Dir(top)} {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.MkdirAll(at("open/a/b"), 0o755), os.MkdirAll(at("shut/a"), 0o755), os.Chmod(at("shut"), 0o770),
		os.Symlink(at("shut/a"), at("open/to-shut")), os.Symlink("../open/a", at("open/to-open")),
		os.Symlink("loop", at("loop")), os.Symlink(at("open"), at("shut/back")))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"open/a/b":       "",
		"open/to-open":   "",
		"open/missing":   "",
		"shut":           at("shut"),
		"shut/a":         at("shut"),
		"shut/missing":   at("shut"),
		"open/to-shut":   at("shut"),
		"open/to-shut/x": at("shut"),
		"shut/back/a":    at("shut"),
		"loop":           "",
	} {
		if got := closedDirectory(at(path)); got != want {
			t.Errorf("on the way to %s: %q, want %q", path, got, want)
		}
	}
}

// TestNotifyDirIsClosed: if crank can start the app as another user, it checks the directory for each generation.
func TestNotifyDirIsClosed(t *testing.T) {
	b := newBench(t, nil)
	for n, mode := range map[int]os.FileMode{1: 0o711, 2: 0o700, 3: 0o711} {
		if err := os.Chmod(b.dir, mode); err != nil {
			t.Fatal(err)
		}
		r, err := b.openReceiver(n)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if abstract := r.Address()[0] == '@'; abstract != (mode == 0o700 && linux.CanSetUser()) {
			t.Errorf("with mode %#o the address is %s", mode, r.Address())
		}
	}
}

func TestMemoryHeadroom(t *testing.T) {
	for _, c := range []struct {
		name string
		file map[string]string
		self string
		free int64
		ok   bool
	}{
		{"limited", map[string]string{"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 5\ninactive_file 100\n"}, "0::/\n", 400, true},
		{"nested", map[string]string{"a/b/memory.max": "50", "a/b/memory.current": "20"}, "1:cpu:/x\n0::/a/b\n", 30, true},
		{"no limit", map[string]string{"memory.max": "max\n", "memory.current": "700\n"}, "0::/\n", 0, false},
		{"no cgroup v2", nil, "4:memory:/x\n", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for name, content := range c.file {
				path := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			self := filepath.Join(root, "self")
			if err := os.WriteFile(self, []byte(c.self), 0o644); err != nil {
				t.Fatal(err)
			}
			if free, ok := memoryHeadroom(root, self); free != c.free || ok != c.ok {
				t.Errorf("got %d, %v", free, ok)
			}
		})
	}
}

// Whoever can write to the runtime directory can put a link in the place of its directory of notify sockets, at any moment:
// what the link points to must be neither changed nor emptied. This attacks as fast as it can.
func TestNotifyDirIsExchanged(t *testing.T) {
	prefix, victim := t.TempDir(), t.TempDir()
	file := filepath.Join(victim, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, link := filepath.Join(prefix, "web.notify"), filepath.Join(prefix, "link")
	if err := errors.Join(os.Mkdir(dir, 0o711), os.Symlink(victim, link)); err != nil {
		t.Fatal(err)
	}
	attack.Exchange(t, dir, link)
	for range 1000 {
		_, _ = NotifyDir(prefix, "web") // that it fails is as it should be
		_, fileErr := os.Lstat(file)
		info, err := os.Stat(victim)
		if err = errors.Join(err, fileErr); err != nil {
			t.Fatalf("crank has removed a file elsewhere: %v", err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Fatalf("crank has changed the mode of a directory elsewhere: %v", info.Mode())
		}
	}
}
