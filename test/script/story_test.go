package script

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/pkg/signame"
)

type storyKey struct{}

// story is what one script has started.
type story struct {
	ts        *testscript.TestScript
	t         failer
	prefix    string // $CRANK_PREFIX and $P: short, since the path of a unix socket has 107 bytes at most
	processes map[string]*process
	asked     []net.Conn // by ask
	held      []net.Conn // by hold
}

// failer is the *testing.T of a script, which testscript hides.
type failer interface {
	Errorf(format string, args ...any)
	Failed() bool
}

// process is a crank, or whatever else start-as has started.
type process struct {
	cmd  *exec.Cmd
	log  string // the file that has its stderr
	done chan struct{}
}

func newStory(e *testscript.Env) error {
	prefix, err := os.MkdirTemp("", "cr")
	if err == nil {
		err = os.Chmod(prefix, 0o711) // as crank creates it
	}
	if err != nil {
		return err
	}
	s := &story{t: e.T().(failer), prefix: prefix, processes: map[string]*process{}}
	e.Values[storyKey{}] = s
	e.Setenv("P", prefix)
	e.Setenv("CRANK_PREFIX", prefix)
	e.Defer(s.end)
	return os.Chmod(prefix, 0o755)
}

// end ends what the story has started.
func (s *story) end() {
	for _, conn := range append(s.asked, s.held...) {
		conn.Close()
	}
	for name, p := range s.processes {
		if err := p.end(); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		log, _ := os.ReadFile(p.log)
		if strings.Contains(string(log), "panic: ") || strings.Contains(string(log), "fatal error: ") {
			s.t.Errorf("%s panicked", name)
		}
		if s.t.Failed() {
			s.t.Errorf("%s", log)
		}
	}
	os.RemoveAll(s.prefix)
}

// end asks politely, then kills what is below the process, which a crank must not outlive for long.
func (p *process) end() error {
	if p.waited(0) {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		if p.waited(300 * time.Millisecond) {
			return nil
		}
		if err := killBelow(p.cmd.Process.Pid); err != nil {
			return err
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("it did not end though it was told to and all its processes are dead")
}

func killBelow(root int) error {
	table, err := proc.Processes()
	if err != nil {
		return err
	}
	for pid, e := range table {
		if pid != root && table.Within(pid, root) {
			_ = proc.SignalEntry(e, syscall.SIGKILL) // it may be gone
		}
	}
	return nil
}

func (p *process) waited(limit time.Duration) bool {
	select {
	case <-p.done: // also where limit is 0
		return true
	default:
	}
	select {
	case <-p.done:
		return true
	case <-time.After(limit):
		return false
	}
}

func (s *story) start(not bool, args []string) {
	s.usage(!not && len(args) > 0, "start NAME [ARG ...]")
	s.startAs(false, append([]string{args[0], "crank", "-name", args[0]}, args[1:]...))
}

func (s *story) startAs(not bool, args []string) {
	s.usage(!not && len(args) > 1, "start-as NAME PROGRAM [ARG ...]")
	name := args[0]
	if old := s.processes[name]; old != nil && !old.waited(0) {
		s.ts.Fatalf("%s runs already", name)
	}
	cmd := s.command(args[1:])
	stdout, err := os.Create(s.ts.MkAbs(name + ".out"))
	s.ts.Check(err)
	defer stdout.Close()
	stderr, err := os.Create(s.ts.MkAbs(name + ".err"))
	s.ts.Check(err)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	s.ts.Check(cmd.Start())
	p := &process{cmd: cmd, log: stderr.Name(), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // cmd.ProcessState has it
	}()
	s.processes[name] = p
	s.ts.Setenv(name, strconv.Itoa(cmd.Process.Pid))
}

// command is for a program with the environment and the directory of the script.
func (s *story) command(argv []string) *exec.Cmd {
	list := filepath.Join(s.prefix, "environment")
	s.ts.Check(s.ts.Exec("sh", "-c", "env -0 > "+list))
	content, err := os.ReadFile(list)
	s.ts.Check(err)
	s.ts.Check(os.Remove(list))
	path := argv[0]
	if !strings.Contains(path, "/") {
		path, err = exec.LookPath(path) // the PATH of this process has crank too
		s.ts.Check(err)
	}
	return &exec.Cmd{
		Path: path, Args: argv, Dir: s.ts.MkAbs("."),
		Env: strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00"),
	}
}

func (s *story) up(not bool, args []string) {
	s.usage(!not && (len(args) == 1 || len(args) == 2), "up NAME [GENERATION]")
	name := args[0]
	client, err := control.NewClient(filepath.Join(s.prefix, name+".ctl"), "")
	s.ts.Check(err)
	var info control.Info
	s.await(name+" to be ready", func() bool {
		if p := s.processes[name]; p != nil && p.waited(0) {
			s.ts.Fatalf("%s has ended: %v", name, p.cmd.ProcessState)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		info, err = client.Info(ctx)
		return err == nil && info.Current != nil &&
			(len(args) == 1 || strconv.Itoa(info.Current.Generation) == args[1])
	})
	s.ts.Setenv(name+"_app", strconv.Itoa(info.Current.PID))
	for _, socket := range info.Sockets {
		if _, address, ok := strings.Cut(socket.Bound, "://"); ok && strings.HasPrefix(socket.Bound, "tcp") {
			_, port, err := net.SplitHostPort(address)
			s.ts.Check(err)
			s.ts.Setenv(name+"_url", "http://127.0.0.1:"+port)
			return
		}
	}
}

func (s *story) ended(not bool, args []string) {
	s.usage(!not && len(args) == 2, "ended NAME CODE")
	p := s.processes[args[0]]
	if p == nil {
		s.ts.Fatalf("%s was never started", args[0])
	}
	if !p.waited(patience) {
		s.ts.Fatalf("%s has not ended", args[0])
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		s.ts.Fatalf("%s has ended with %v, want code %s", args[0], p.cmd.ProcessState, args[1])
	}
}

func (s *story) signal(not bool, args []string) {
	s.usage(!not && len(args) == 2, "signal SIGNAL PID")
	sig, err := signame.Parse(args[0])
	s.ts.Check(err)
	pid, err := strconv.Atoi(args[1])
	s.ts.Check(err)
	s.ts.Check(syscall.Kill(pid, sig))
}

func (s *story) gone(not bool, args []string) {
	s.usage(len(args) == 1, "gone PID")
	pid, err := strconv.Atoi(args[0])
	s.ts.Check(err)
	exists := func() bool {
		e, ok := proc.Lookup(pid)
		return ok && !e.Zombie
	}
	if not {
		if !exists() {
			s.ts.Fatalf("process %d is gone", pid)
		}
		return
	}
	s.await("process "+args[0]+" to be gone", func() bool { return !exists() })
}

func (s *story) usage(ok bool, text string) {
	if !ok {
		s.ts.Fatalf("usage: %s", text)
	}
}

// await polls until something has happened.
func (s *story) await(what string, happened func() bool) {
	for limit := time.Now().Add(patience); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			s.ts.Fatalf("waited in vain for %s", what)
		}
	}
}

func (s *story) pattern(text string) *regexp.Regexp {
	p, err := regexp.Compile("(?m)" + text)
	s.ts.Check(err)
	return p
}
