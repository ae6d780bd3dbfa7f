// Package launch turns a command into a running generation: its descriptors, its environment, its
// notify sockets and its output.
package launch

import (
	"cmp"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/execvp"
	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/output"
	"github.com/crankctl/crank/pkg/proc"
	"github.com/crankctl/crank/pkg/profile"
	"github.com/crankctl/crank/pkg/sockets"
	"github.com/crankctl/crank/pkg/supervisor"
)

// Config is what all generations have in common.
type Config struct {
	Name         string
	Ctl          string          // CRANK_CTL for the app; empty: none
	NotifyDir    string          // of the notify sockets; empty: abstract addresses
	Profile      profile.Profile // how the app is told of its sockets
	ListenPID    bool            // LISTEN_PID is set where the profile sets LISTEN_FDS
	Watchdog     time.Duration   // WATCHDOG_USEC for the app; 0: none
	StdinSocket  bool            // the first socket is also descriptor 0
	NoNewPrivs   bool
	WarnOfMemory bool // say it where a second generation does not fit
	Output       output.Mode
	KeepStderr   bool
	Stdout       *output.Destination // crank's own, which its log may share
	Stderr       *output.Destination
	Dir          string                       // absolute, for commands without a directory; empty: crank's own working directory
	Terminal     bool                         // stdin is a terminal: a generation that runs alone gets its foreground, if crank has it
	Environ      []string                     // crank's own environment
	Settings     []string                     // the variables in it that are crank's own, and not for the app
	Redact       func(argv []string) []string // returns a command as it may be shown; nil: as it is
	// Observe is called for every message from an app: with the keys that were understood, or that it was refused or invalid.
	// It is called by several goroutines and must not block. It may be nil.
	Observe func(keys []string, refused bool)
	Log     logr.Logger
}

// Launcher starts generations and knows which process belongs to which. It is a
// supervisor.Launcher; its methods are for the supervisor's goroutine, except Close.
type Launcher struct {
	cfg           Config
	sockets       *sockets.Set
	notice        func(generation int, m notify.Message)
	nowhere       *output.Destination // for the output of probes
	null          int
	ownOOMScore   string          // see oomScore
	broken        map[string]bool // the logged damage to sockets that cannot be restored
	newest        *snapshot       // taken before the newest generation was started
	rivals        *rivals
	warnedOfStdin bool
	terminalGroup int          // that has the terminal's foreground; 0: crank has it back, or never had it
	terminalStuck bool         // crank could not take the foreground back from the last group
	inBackground  *child       // started alone, while crank was in the background of its terminal; nil: none
	warnedOfLoss  [2]sync.Once // of stdout and stderr

	mu       sync.Mutex     // guards children, whose main process is which, and probes, which other goroutines read, and heldBack
	children map[int]*child // by generation
	probes   map[int]*child // by pid
	heldBack []proc.Exit

	claims  *claims
	missed  missed      // by strays
	wake    func()      // makes the supervisor call Reap again
	alone   bool        // there was no child at all at the last Reap
	blind   atomic.Bool // it could not look for processes the last time, for want of descriptors
	closing sync.WaitGroup
}

// New returns a Launcher that holds set and passes what the generations say to notice. wake, which
// must not block, is to have the supervisor call Reap soon. The caller closes set after the Launcher.
func New(cfg Config, set *sockets.Set, notice func(generation int, m notify.Message), wake func()) (*Launcher, error) {
	if cfg.Observe == nil {
		cfg.Observe = func([]string, bool) {}
	}
	l := &Launcher{cfg: cfg, sockets: set, notice: notice, wake: wake, children: map[int]*child{}, probes: map[int]*child{}}
	l.claims = newClaims(cfg.Name, wake)
	l.rivals = newRivals(l)
	var err error
	l.null, err = syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	l.nowhere, _ = output.Destinations(l.null, l.null)
	return l, nil
}

// warnOfLoss logs that output of an app was lost, once each for stdout and stderr: nobody reads it, the disk is full or the like.
func (l *Launcher) warnOfLoss(to *output.Destination, cause error) {
	stream, once := "stdout", &l.warnedOfLoss[0]
	if to == l.cfg.Stderr {
		stream, once = "stderr", &l.warnedOfLoss[1]
	}
	once.Do(func() { logging.Warn(l.cfg.Log, "app output lost", "stream", stream, "cause", cause.Error()) })
}

// Close waits until the generations' descriptors are closed and their output is passed on, at most
// grace, and removes the directory of the notify sockets.
func (l *Launcher) Close(grace time.Duration) {
	done := make(chan struct{})
	go func() {
		l.closing.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(grace):
	}
	l.claims.close()
	linux.Close(l.null)
	if l.cfg.NotifyDir != "" {
		removeNotifyDir(l.cfg.NotifyDir)
	}
}

// child is one generation's process, its check, or a probe of it, and what crank holds for it.
type child struct {
	l          *Launcher
	generation int
	launched   *proc.Process    // what crank has started
	main       *proc.Process    // the same, unless MAINPID named another
	before     *snapshot        // of the shared state, taken before it was started; nil: it has no sockets
	failed     bool             // as a candidate
	receiver   *notify.Receiver // nil for a check or a probe, which sends no messages
	streams    *output.Streams
	oomRaised  bool
	missed     missed // by its other processes
	warned     bool   // of READY from a process that LISTEN_PID does not name; used by onNotice alone
	saidVoid   bool   // an invalid message was logged; used by onNotice alone
	users      users  // used by onNotice alone
}

// Launch implements supervisor.Launcher.
func (l *Launcher) Launch(id supervisor.ID, c supervisor.Command, protect bool) (supervisor.Child, error) {
	n := id.Generation
	if protect && l.cfg.WarnOfMemory {
		if err := l.Room(); err != nil {
			logging.Warn(l.cfg.Log, "no memory for a second generation", "generation", n, "cause", err.Error())
		}
	}
	ch := &child{l: l, generation: n, before: l.snapshot()}
	l.newest = ch.before
	var err error
	ch.streams, err = output.Start(l.cfg.Output, output.Options{
		Name: l.cfg.Name, Generation: n, Stdout: l.cfg.Stdout, Stderr: l.cfg.Stderr, KeepStderr: l.cfg.KeepStderr,
		OnLoss: l.warnOfLoss,
	})
	if err != nil {
		return nil, err
	}
	if ch.receiver, err = l.openReceiver(n); err != nil {
		ch.streams.Close(0)
		return nil, err
	}
	if err := ch.start(id, c, protect); err != nil {
		ch.streams.Close(0)
		ch.receiver.Close()
		return nil, err
	}
	l.mu.Lock()
	l.children[n] = ch
	l.mu.Unlock()
	l.alone = false
	ch.streams.CloseAppEnds()
	ch.streams.SetPID(ch.PID())
	ch.receiver.CloseAppEnd()
	ch.receiver.Serve(ch.onNotice)
	return ch, nil
}

// Executed implements supervisor.Child.
func (ch *child) Executed() bool { return ch.launched.Executed() }

// openReceiver makes a directory again that somebody has deleted, and falls back to an abstract address where that cannot
// be, or it is full: an app that cannot send READY is worse. It does the same, checking each time, where an app that changes its user,
// as it may if crank may, would not reach the directory.
func (l *Launcher) openReceiver(n int) (*notify.Receiver, error) {
	if l.cfg.NotifyDir != "" && linux.CanSetUser() {
		if closed := closedDirectory(l.cfg.NotifyDir); closed != "" {
			l.cfg.Log.V(1).Info("abstract notify socket", "generation", n, "cause", closed+" is closed to other users")
			return notify.Open("", n)
		}
	}
	r, err := notify.Open(l.cfg.NotifyDir, n)
	if errors.Is(err, os.ErrNotExist) && makeNotifyDir(l.cfg.NotifyDir) == nil {
		r, err = notify.Open(l.cfg.NotifyDir, n)
	}
	if err != nil && l.cfg.NotifyDir != "" {
		l.cfg.Log.Error(err, "no notify socket in the runtime directory: using an abstract one", "generation", n)
		r, err = notify.Open("", n)
	}
	return r, err
}

// start forks.
func (ch *child) start(id supervisor.ID, c supervisor.Command, protect bool) error {
	l := ch.l
	alone := l.livesAlone(ch.generation)
	env := l.environ(id, c, &notifyAt{fd: 3 + len(l.sockets.Sockets()), address: ch.receiver.Address()})
	spec := proc.Spec{
		Path: c.Argv[0], Search: execvp.Path(env), Argv: c.Argv, Env: env, Dir: l.dir(c), Files: ch.files(l.stdin(ch.generation, alone)),
		ListenPID: ch.namesPID(), WatchdogPID: l.cfg.ListenPID && l.cfg.Watchdog > 0, NoNewPrivs: l.cfg.NoNewPrivs,
	}
	if alone {
		l.returnTerminal() // the group that had it may have ended only now
		if l.hasTerminal() {
			spec.Terminal = 1 + stdin
		}
	}
	var err error
	ch.launched, err = l.fork(spec, protect)
	ch.main = ch.launched
	switch {
	case err != nil:
	case spec.Terminal != 0:
		l.terminalGroup = ch.launched.PID()
	case alone && l.cfg.Terminal:
		l.inBackground = ch
	}
	ch.oomRaised = err == nil && protect && l.oomScore() != ""
	return err
}

// dir returns the directory that a command starts in. The child enters it by name: a symlink in it may lead elsewhere than
// at the last start.
func (l *Launcher) dir(c supervisor.Command) string { return cmp.Or(c.Dir, l.cfg.Dir) }

// fork starts a process, and makes the supervisor call Reap when its exec is over.
func (l *Launcher) fork(spec proc.Spec, protect bool) (*proc.Process, error) {
	// The kernel's first choice is the newcomer, as long as there is somebody to protect from it.
	// A program with more rights than crank cannot be given its old score back, but then it keeps
	// crank's own as well: the write in the child fails.
	if protect && l.oomScore() != "" {
		spec.OOMScoreAdj = oomScoreStarting
	}
	p, err := proc.Start(spec)
	if err != nil {
		return nil, l.redacted(err)
	}
	l.closing.Go(func() { // ends with the process at the latest
		<-p.ExecOver()
		l.wake()
	})
	return p, nil
}

// redacted hides the path of a program, which an error names, where the command's word would be hidden.
func (l *Launcher) redacted(err error) error {
	if start, ok := errors.AsType[*proc.StartError](err); ok && l.cfg.Redact != nil {
		start.Path = l.cfg.Redact([]string{start.Path})[0]
	}
	return err
}

// namesPID reports whether there is a LISTEN_PID.
func (ch *child) namesPID() bool { return ch.l.cfg.ListenPID && ch.l.listens() }

const oomScoreStarting = "1000"

// oomScore returns crank's own, which is read when there is somebody to protect, or "" where there is no /proc: then none is changed.
func (l *Launcher) oomScore() string {
	if l.ownOOMScore == "" {
		l.ownOOMScore, _ = proc.OOMScoreAdj()
	}
	return l.ownOOMScore
}

// crank's own standard descriptors. They are used by number: os.File.Fd may change O_NONBLOCK.
const stdin, stdout, stderr = 0, 1, 2

// files returns the child's descriptors, from 0, which is input.
func (ch *child) files(input int) []int {
	files := []int{input, inherit(ch.streams.AppStdout(), stdout), inherit(ch.streams.AppStderr(), stderr)}
	for _, s := range ch.l.sockets.Sockets() {
		files = append(files, s.FD())
	}
	return append(files, ch.receiver.AppFD())
}

func inherit(fd, own int) int {
	if fd < 0 {
		return own
	}
	return fd
}

// Reap implements supervisor.Launcher. The end of a generation is held back until what the app said
// before it has been handled: "X_CRANK_FAILED=why" and then exit 1 is a failure with a reason.
func (l *Launcher) Reap() (exits []proc.Exit, none bool) {
	l.mu.Lock()
	exits, l.heldBack = l.heldBack, nil
	l.mu.Unlock()
	ended := func(ch *child, e proc.Exit) {
		e.Failed = l.redacted(e.Failed)
		if ch == nil || ch.receiver == nil || ch.receiver.Idle() {
			exits = append(exits, e)
			return
		}
		l.closing.Go(func() { l.holdBack(ch, e) })
	}
	none, err := proc.Reap(func(e proc.Exit) { ended(l.endedWith(e), e) })
	if err != nil {
		l.cfg.Log.Error(err, "cannot reap")
	}
	for ch, e := range l.unseen() {
		ended(ch, e)
	}
	l.alone = none
	return exits, none
}

// lastWords is how long the end of a generation is held back at most.
const lastWords = time.Second

// holdBack polls: nobody tells when a socket has become empty. It runs only where an app has ended
// with something unread, on a goroutine of its own.
func (l *Launcher) holdBack(ch *child, e proc.Exit) {
	for deadline := time.Now().Add(lastWords); !ch.receiver.Idle() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	l.mu.Lock()
	l.heldBack = append(l.heldBack, e)
	l.mu.Unlock()
	l.wake()
}

// Gone implements supervisor.Child. crank takes the terminal's foreground back, now or when the leftover processes that have it end.
func (ch *child) Gone() {
	ch.gone(ch.main)
	ch.l.rivals.gone(ch.generation)
	ch.returnTerminal()
}

// Signal implements supervisor.Child.
func (ch *child) Signal(sig syscall.Signal, group bool) error {
	p := ch.signalled()
	if group {
		return p.SignalGroup(sig)
	}
	return p.Signal(sig)
}

// Promote implements supervisor.Child: it gives all that the app has started so far the OOM score that it
// would have without crank, restores the requested backlog, and looks for sockets that share the port.
func (ch *child) Promote() {
	if ch.oomRaised {
		ch.oomRaised = false
		ch.restoreOOMScore()
	}
	if err := ch.l.sockets.Relisten(); err != nil {
		ch.l.cfg.Log.Error(err, "cannot set the backlog again", "generation", ch.generation)
	}
	ch.l.rivals.promoted(ch.generation, time.Now())
}

// tailPatience is how long the last bytes of a dead process's stderr may take through crank: they
// are in a pipe, and only a stderr that nobody reads holds them up.
const tailPatience = 250 * time.Millisecond

// Tail implements supervisor.Child.
func (ch *child) Tail() supervisor.Tail {
	ch.streams.Flush(tailPatience)
	lines, note := ch.streams.Tail()
	return supervisor.Tail{Lines: lines, Note: note}
}

// Close implements supervisor.Child. The receiver may be about to hand a message to the
// supervisor, and the copier may be held up by a slow reader: neither is waited for here.
func (ch *child) Close() {
	l := ch.l
	ch.returnTerminal()
	ch.putBackLast()
	ch.gone(ch.main)
	ch.gone(ch.launched)
	l.mu.Lock()
	if l.children[ch.generation] == ch {
		delete(l.children, ch.generation)
	}
	delete(l.probes, ch.PID())
	l.mu.Unlock()
	if ch.receiver != nil {
		l.closing.Go(ch.receiver.Close)
	}
	select {
	case <-ch.streams.Done():
	default:
		l.closing.Go(func() { <-ch.streams.Done() })
	}
}
