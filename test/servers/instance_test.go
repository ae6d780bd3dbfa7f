package servers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crankctl/crank/test/root"
)

// instance is one crank that runs a server as its recipe says.
type instance struct {
	t *testing.T
	server
	*placed
	credential *syscall.Credential
	process    *exec.Cmd
	ended      chan struct{} // closed when process has been waited for
	drains     []*slow       // of each swap and of the end
	failed     []error       // what this instance lost that the load does not count
}

// start starts crank with the server, and waits until it is ready. It is stopped at the end of the test at the latest.
func start(t *testing.T, s server, r *recipe) *instance {
	t.Helper()
	root, err := os.MkdirTemp("", "srv-") // shorter than t.TempDir, for sun_path
	if err == nil {
		err = os.Chmod(root, 0o755) // not all servers can use an abstract NOTIFY_SOCKET
	}
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{t: t, server: s, placed: r.at(root, s.paths, s.change), ended: make(chan struct{})}
	for _, dir := range []string{"run", "tmp", r.workdir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	i.place(1)
	i.become(r.user)

	log, err := os.Create(filepath.Join(root, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var command []string
	for _, word := range r.command {
		command = append(command, i.replace.Replace(word))
	}
	i.process = i.within(i.command("crank", append([]string{"--"}, command...)...))
	i.process.Stdout, i.process.Stderr = log, log
	i.process.SysProcAttr.Setsid = true // what is left of it can be found by its session
	if err := i.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		i.process.Wait()
		close(i.ended)
	}()
	t.Cleanup(i.end)
	i.ready()
	return i
}

// become makes the recipe's user the one of all that follows, where this test can.
func (i *instance) become(name string) {
	i.t.Helper()
	for _, dir := range []string{i.root, bin} { // also for a server that changes its user by itself
		if err := os.Chmod(dir, 0o755); err != nil {
			i.t.Fatal(err)
		}
	}
	if name == "" || !root.Full() {
		return
	}
	u, err := user.Lookup(name)
	if err != nil {
		i.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	i.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := own(i.root, uid, gid); err != nil {
		i.t.Fatal(err)
	}
}

// command is crank or crankctl, as the recipe's user with the recipe's environment.
func (i *instance) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir = filepath.Join(i.root, i.workdir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: i.credential}
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + i.root, "TMPDIR=" + filepath.Join(i.root, "tmp"), "LANG=C.UTF-8",
		"CRANK_PREFIX=" + filepath.Join(i.root, "run"), "CRANK_STOP_TIMEOUT=80s"}
	for _, variable := range i.env {
		cmd.Env = append(cmd.Env, i.replace.Replace(variable))
	}
	return cmd
}

// within returns what runs cmd in the surroundings that the server needs.
func (i *instance) within(cmd *exec.Cmd) *exec.Cmd {
	if i.surroundings == "" {
		return cmd
	}
	argv := []string{"--mount", "sh", "-ec", i.surroundings + "\nexec \"$@\"", "sh"}
	if c := i.credential; c != nil {
		argv = append(argv, "setpriv", fmt.Sprint("--reuid=", c.Uid), fmt.Sprint("--regid=", c.Gid), "--clear-groups", "--")
	}
	outer := exec.Command("unshare", slices.Concat(argv, cmd.Args)...)
	outer.Dir, outer.Env, outer.SysProcAttr = cmd.Dir, cmd.Env, &syscall.SysProcAttr{}
	return outer
}

// place writes the files of version n.
func (i *instance) place(n int) {
	i.t.Helper()
	i.placed.place(i.t, n)
}

// crankctl runs a verb, which must succeed.
func (i *instance) crankctl(args ...string) {
	i.t.Helper()
	if out, err := i.command("crankctl", append([]string{"-timeout", patience.String()}, args...)...).CombinedOutput(); err != nil {
		i.t.Fatalf("crankctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (i *instance) reload() { i.t.Helper(); i.crankctl("reload") }
func (i *instance) idle()   { i.t.Helper(); i.crankctl("wait", "-idle") }

// ready waits for the first generation.
func (i *instance) ready() {
	i.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if sockets, _ := filepath.Glob(filepath.Join(i.root, "run", "*.ctl")); len(sockets) > 0 {
			break
		}
		select {
		case <-i.ended:
			i.t.Fatal("crank has ended")
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				i.t.Fatal("crank does not start")
			}
		}
	}
	i.crankctl("wait", "-ready")
}

// request asks the server once, on a connection of its own.
func (i *instance) request(path string) (string, error) {
	if i.ask == nil {
		return askHTTP(i, path)
	}
	return i.ask(i, path)
}

// answers waits until the server's answer is want.
func (i *instance) answers(want string) {
	i.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		answer, err := i.request("/")
		switch {
		case err != nil && i.loses == 0:
			i.t.Fatalf("waiting for %q: %v", want, err)
		case err != nil:
			i.failed = append(i.failed, fmt.Errorf("waiting for %q: %w", want, err))
		}
		if firstLine(answer) == want {
			return
		}
		if time.Now().After(deadline) {
			i.t.Fatalf("the answer is %q and not %q", answer, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// stop stops crank with TERM while a slow request is under way, and looks for what is left.
func (i *instance) stop() {
	i.t.Helper()
	last := i.begin()
	last.enough(swaps + 1) // one of them: one that begins when TERM comes may not be accepted any more
	for range 5 {
		if _, err := i.request("/"); err != nil { // they queue behind the slow one: when they are answered, it has been accepted
			i.t.Fatal(err)
		}
	}
	i.drains = append(i.drains, last)
	i.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-i.ended:
	case <-time.After(patience):
		i.t.Fatal("crank does not end on TERM")
	}
	if code := i.process.ProcessState.ExitCode(); code != i.exit {
		i.t.Errorf("crank ended with %v, want exit code %d", i.process.ProcessState, i.exit)
	}
	if conn, err := net.Dial("tcp", i.address[0]); err == nil {
		conn.Close()
		i.t.Errorf("somebody still listens on %s", i.address[0])
	}
}

// end kills what a test that failed has left, and removes the directory.
func (i *instance) end() {
	select {
	case <-i.ended:
	default:
		i.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-i.ended:
		case <-time.After(patience):
			i.process.Process.Kill()
			<-i.ended
		}
	}
	for _, pid := range session(i.process.Process.Pid) {
		i.t.Errorf("process %d is left", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if log, err := os.ReadFile(filepath.Join(i.root, "log")); i.t.Failed() && err == nil {
		i.t.Logf("the end of the log:\n%s", log[max(0, len(log)-8<<10):])
	}
	os.RemoveAll(i.root)
}

// session returns the processes of a session, zombies left out.
func session(id int) (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range found {
		stat, err := os.ReadFile(path)
		_, after, ok := bytes.Cut(stat, []byte(") ")) // state ppid pgrp session; proc_pid_stat(5)
		fields := strings.Fields(string(after))
		if err != nil || !ok || len(fields) < 4 || fields[0] == "Z" || fields[3] != strconv.Itoa(id) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		pids = append(pids, pid)
	}
	return pids
}

// slow are the slow requests of one swap.
type slow struct {
	instance *instance
	stop     chan struct{} // closed when no further one shall begin
	done     chan struct{} // closed when all are answered
	from     string        // the version that must answer what was under way when it was asked to drain

	stopped  time.Time
	requests int
	underWay int
	errors   []error
}

// slowEvery: the one before the newest generation is asked to drain 1 s (-settle) after the candidate is ready. Of the requests
// that take 2 s, one began then less than 1.5 s ago, when it was the only one to accept.
const slowEvery = 500 * time.Millisecond

// begin begins slow requests, one right now and one more each half second, until enough is called.
func (i *instance) begin() *slow {
	s := &slow{instance: i, stop: make(chan struct{}), done: make(chan struct{})}
	results := make(chan slowResult)
	go func() { // ends when the last request has: each has a deadline
		defer close(s.done)
		tick := time.NewTicker(slowEvery)
		defer tick.Stop()
		stop, tired, pending := s.stop, tick.C, 0
		launch := func() {
			pending++
			s.requests++
			go func() {
				began := time.Now()
				answer, err := i.request("/slow")
				results <- slowResult{answer: firstLine(answer), err: err, took: time.Since(began), ended: time.Now()}
			}()
		}
		launch()
		var all []slowResult
		for pending > 0 || stop != nil {
			select {
			case <-tired:
				launch()
			case <-stop:
				stop, tired = nil, nil
			case r := <-results:
				pending--
				all = append(all, r)
			}
		}
		for _, r := range all {
			s.count(r)
		}
	}()
	return s
}

type slowResult struct {
	answer string
	err    error
	took   time.Duration
	ended  time.Time
}

// enough says that version n has just been asked to drain, and ends the beginning of slow requests.
func (s *slow) enough(n int) {
	s.stopped, s.from = time.Now(), fmt.Sprint("version ", n)
	close(s.stop)
}

func (s *slow) count(r slowResult) {
	switch {
	case r.err != nil:
		s.errors = append(s.errors, fmt.Errorf("slow request, after %v: %w", r.took.Round(time.Millisecond), r.err))
	case !strings.HasPrefix(r.answer, "version "):
		s.errors = append(s.errors, errors.New("slow request: answered "+strconv.Quote(r.answer)))
	}
	if r.ended.After(s.stopped) && (r.err != nil || r.answer == s.from) {
		s.underWay++
	}
}
