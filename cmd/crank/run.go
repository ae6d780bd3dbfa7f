package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/crankctl/crank/pkg/config"
	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/control/server"
	"github.com/crankctl/crank/pkg/health"
	"github.com/crankctl/crank/pkg/launch"
	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/logging"
	"github.com/crankctl/crank/pkg/metrics"
	"github.com/crankctl/crank/pkg/notify"
	"github.com/crankctl/crank/pkg/output"
	"github.com/crankctl/crank/pkg/parent"
	"github.com/crankctl/crank/pkg/probe"
	"github.com/crankctl/crank/pkg/saved"
	"github.com/crankctl/crank/pkg/signals"
	"github.com/crankctl/crank/pkg/sockets"
	"github.com/crankctl/crank/pkg/supervisor"
	"github.com/crankctl/crank/pkg/version"
)

// exitSelf is crank's exit code for its own errors, as docker's and chroot's.
const exitSelf = 125

// tokenVariable names the file with the token of a TCP control socket.
const tokenVariable = "CRANK_CTL_TOKEN_FILE"

// farewell is how long the end of the output and of the log may take once all is over.
const farewell = time.Second

// run is crank: it returns the exit code.
func run(args []string) int {
	nested := forgetOuterCrank()
	cfg, err := config.Load(args)
	switch {
	case err != nil:
		return complain(err)
	case cfg.Help:
		fmt.Print(config.Usage())
		return 0
	case cfg.Profile == config.ProfileHelp:
		fmt.Print(config.Profiles())
		return 0
	case cfg.Version:
		fmt.Println("crank", version.String())
		return 0
	case cfg.Install != "":
		if err := install(cfg.Install); err != nil {
			return complain(err)
		}
		return 0
	case cfg.Idle():
		for _, w := range cfg.Warnings {
			fmt.Fprintln(os.Stderr, "crank:", w)
		}
		fmt.Fprint(os.Stderr, config.ShortUsage())
		return exitSelf
	}
	c := &crank{cfg: cfg, nested: nested}
	c.stdout, c.stderr = output.Destinations(1, 2)
	log, writer := logging.New(c.stderr.Writer(), cfg.LogFormat, int(cfg.LogLevel), linux.IsTerminal(2), cfg.Name)
	defer writer.Close(farewell)
	c.log, c.dropped = log, writer.Dropped
	code, err := c.run()
	if err != nil {
		writer.Flush(farewell)
		writeTerminationLog(cfg.TerminationLog, cfg.Name, err.Error(), supervisor.Tail{})
		return complain(err)
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "crank:", err)
	return exitSelf
}

// forgetOuterCrank drops what another crank, whose app this one is, said to it: the outer one's
// control socket and name are not ours. It returns whether there is one.
func forgetOuterCrank() bool {
	if os.Getenv("CRANK_GENERATION") == "" {
		return false
	}
	for _, key := range []string{"CRANK_GENERATION", "CRANK_SLOT", "CRANK_NAME", "CRANK_CTL"} {
		os.Unsetenv(key)
	}
	return true
}

// crank is one instance, put together.
type crank struct {
	cfg       config.Config
	nested    bool // it is the app of another crank
	log       logr.Logger
	stdout    *output.Destination
	stderr    *output.Destination // shared by the log and the app's output
	dir       string              // the generations' working directory; empty: crank's own
	prefix    string              // the runtime directory; empty: none
	conf      string              // the saved command's file; empty: none
	ctl       string              // the control socket's address; empty: none
	hasSaved  bool                // there is a saved command
	confError error               // why conf is empty although -conf is not off
	store     *saved.Writer
	sockets   *sockets.Set
	target    *probe.Target // what -ready asks over the network; nil: nothing
	started   time.Time
	sup       *supervisor.Supervisor
	listener  *server.Listener
	http      *health.Listener // nil: no -http
	metrics   *metrics.Metrics // nil: no -http
	free      int              // freeProcesses, before the first fork
	dropped   func() int64     // how many lines the log has lost
	serving   sync.Mutex       // guards stops
	stops     []func()         // end what serve has begun
	parent    sync.WaitGroup   // what tells the service manager
}

// run wires everything, from the bottom up, and runs the supervisor to its end.
func (c *crank) run() (code int, err error) {
	c.started = time.Now()
	if err := linux.CloseOnExecFrom(3); err != nil {
		return 0, fmt.Errorf("cannot keep inherited descriptors out of the app: %w", err)
	}
	// Never closed: a signal that comes while crank ends must not end it with its default action,
	// since the exit code is the app's.
	in := signals.Listen(c.cfg.Rewrite, c.warnOfCPULimit)
	for _, w := range c.cfg.Warnings {
		logging.Warn(c.log, w)
	}
	if err := c.directory(); err != nil {
		return 0, err
	}
	if err := c.bind(); err != nil {
		return 0, err
	}
	defer func() { c.warn(c.sockets.Close()) }()
	if err := c.findTarget(); err != nil {
		return 0, err
	}
	if err := c.listenHTTP(); err != nil {
		return 0, err
	}
	if c.http != nil {
		defer func() { c.warn(c.http.Close()) }()
	}
	defer c.parent.Wait()
	if err := c.places(); err != nil {
		return 0, err
	}
	if err := c.listen(); err != nil {
		return 0, err
	}
	if c.listener != nil {
		defer func() { c.warn(c.listener.Close()) }()
	}
	c.adopt()
	return c.supervise(in)
}

// adopt makes crank the parent of orphans, which PID 1 is anyway.
func (c *crank) adopt() {
	if os.Getpid() == 1 {
		return
	}
	if err := linux.SetSubreaper(); err != nil {
		c.log.Error(err, "crank is not PID 1 and cannot adopt orphans: they are not reaped")
		return
	}
	c.log.V(c.quiet()).Info("crank is not PID 1: it adopts the orphans of its own processes only")
}

// warn logs what could not be cleaned up at the end.
func (c *crank) warn(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.log.Error(err, "not all could be cleaned up")
	}
}

// warnOfCPULimit is called when crank has used up its CPU time. At the hard limit the kernel kills it.
func (c *crank) warnOfCPULimit() {
	logging.Warn(c.log, "CPU time limit reached; SIGXCPU dropped", "advice", "raise crank's limit (ulimit -t), and set one for the app alone")
}

// places finds the runtime directory and what is in it.
func (c *crank) places() error {
	dir, warning, err := config.ResolvePrefix(c.cfg.Prefix)
	if err != nil {
		return err
	}
	// Who only wants an init does not miss a control socket.
	if warning != "" && !c.plainInit() {
		c.log.Info(warning)
	}
	c.prefix, c.conf, c.ctl = dir, c.cfg.ConfPath(dir), c.cfg.CtlAddress(dir)
	if c.conf == "" || c.cfg.Explicit["conf"] == config.Default {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(c.conf)); err != nil {
		return fmt.Errorf("-conf (CRANK_CONF): no command could be saved at %s: %w: create the directory, or choose another", c.conf, err)
	}
	return nil
}

// listen opens the control socket. Where nobody asked for one, crank lives without.
func (c *crank) listen() error {
	if c.ctl == "" {
		return nil
	}
	var err error
	c.listener, err = server.Listen(c.ctl, os.Getenv(tokenVariable))
	switch {
	case err == nil:
		return nil
	case c.cfg.Explicit["ctl"] == config.Default && (c.nested || c.plainInit() && c.cfg.Explicit["name"] == config.Default):
		// Two that nobody named, as with docker exec: the second one is an init and no more. Or one that
		// is itself the app of a crank, which swaps it while the old one still has the name.
		c.log.V(c.quiet()).Info("running without a control socket and a saved command", "cause", err.Error())
		c.conf, c.ctl = "", ""
		return nil
	}
	return fmt.Errorf("-ctl (CRANK_CTL): %w", err)
}

// plainInit reports whether crank holds no socket: then it is used as tini is, and as quiet.
func (c *crank) plainInit() bool { return len(c.cfg.Bind) == 0 }

// quiet is the level of what only matters to who uses more of crank than an init.
func (c *crank) quiet() int {
	if c.plainInit() {
		return 1
	}
	return 0
}

// supervise runs the app until it is all over.
func (c *crank) supervise(in *signals.Inbox) (code int, err error) {
	first, options, err := c.first()
	if err != nil {
		return 0, err
	}
	c.makeMetrics()
	launcher, err := launch.New(c.launchConfig(), c.sockets, func(n int, m notify.Message) { c.sup.Notice(n, m) }, in.Wake)
	if err != nil {
		return 0, err
	}
	defer launcher.Close(farewell)
	c.store = saved.New(c.conf, c.log)
	defer func() { c.warn(c.store.Close(farewell)) }()

	options.Launcher, options.Signals, options.Children, options.Log = launcher, in.Signals(), in.Children(), c.log
	if linux.IsTerminal(0) {
		options.HungUp = func() bool { return linux.HungUp(0) }
	}
	if c.cfg.MemoryCheck == "refuse" {
		options.Room = launcher.Room
	}
	if c.conf != "" {
		options.Saver = saver{c.store, c.cfg.Command, c.plainInit() && !c.hasSaved}
	}
	if c.metrics != nil {
		options.Observer = c.metrics
	}
	if c.target != nil {
		options.Prober = probe.New(*c.target, time.Duration(c.cfg.ReadyTimeout), launcher)
	}
	options.Begun = func() { c.begun(in) }
	if c.free = freeProcesses(); c.free < farProcesses {
		prepareRuntime(c.free)
	}
	defer c.endServing()
	c.sup = supervisor.New(c.supervisorConfig(), options)
	code = c.sup.Run(first)
	reason, tail := c.sup.Ending()
	writeTerminationLog(c.cfg.TerminationLog, c.cfg.Name, reason, tail)
	return code, nil
}

// begun does what the app need not wait for.
func (c *crank) begun(in *signals.Inbox) {
	if c.cfg.NotifyParent {
		c.followParent() // also of an app that ends at once
	}
	go func() { // ends with the supervisor
		in.ListenAll()
		if c.free >= farProcesses {
			prepareRuntime(c.free) // in parallel with the app's start
		}
		c.serve()
		staySmall(c.sup.Done(), c.log)
	}()
}

// serve answers crankctl, probes and scrapes, unless all is over already. Who asks earlier waits in the queue of the socket: to
// answer many takes threads, and where none can be made any more they have to be there.
func (c *crank) serve() {
	c.serving.Lock()
	defer c.serving.Unlock()
	select {
	case <-c.sup.Done():
		return
	default:
	}
	if c.listener != nil {
		c.stops = append(c.stops, c.serveControl())
	}
	if c.http != nil {
		c.stops = append(c.stops, c.serveHTTP())
	}
}

// endServing ends what serve has begun. The supervisor has ended, so it begins nothing more.
func (c *crank) endServing() {
	c.serving.Lock()
	defer c.serving.Unlock()
	for _, stop := range slices.Backward(c.stops) {
		stop()
	}
}

// followParent tells the service manager above. One that is not there is no reason not to start.
func (c *crank) followParent() {
	n, err := parent.Open(os.Getenv("NOTIFY_SOCKET"),
		parent.Watchdog(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")), linux.MonotonicUsec)
	if err != nil {
		c.log.Error(err, "the service manager is not told (-notify-parent)")
		return
	}
	c.parent.Go(func() { n.Follow(c.sup) })
}

// serveControl answers crankctl until stop is called.
func (c *crank) serveControl() (stop func()) {
	o := server.Options{Supervisor: c.sup, Info: c.info, Cwd: c.dir, Redact: c.cfg.Redactor(), ReadOnly: bool(c.cfg.CtlReadonly), Log: c.log}
	if c.metrics != nil {
		o.Observe = c.metrics.Requested
	}
	s := server.New(o)
	var serving sync.WaitGroup
	serve := func(l *server.Listener) {
		serving.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				c.log.Error(err, "the control socket is gone: crankctl cannot reach this crank")
			}
		})
	}
	serve(c.listener)
	done := make(chan struct{})
	serving.Go(func() { c.stayReachable(serve, done) })
	return func() {
		close(done)
		if err := s.Close(); err != nil {
			c.log.V(1).Info("the control socket was closed with requests under way", "cause", err.Error())
		}
		serving.Wait()
	}
}

func (c *crank) launchConfig() launch.Config {
	l := launch.Config{
		Name: c.cfg.Name, Ctl: c.ctl, Profile: c.cfg.Preset, ListenPID: bool(c.cfg.ListenPID), Watchdog: time.Duration(c.cfg.WatchdogTimeout), StdinSocket: bool(c.cfg.StdinSocket),
		NoNewPrivs: bool(c.cfg.NoNewPrivs), WarnOfMemory: c.cfg.MemoryCheck == "warn", Output: output.Mode(c.cfg.Output),
		Dir: c.dir, Stdout: c.stdout, Stderr: c.stderr, KeepStderr: !c.plainInit() && !linux.IsTerminal(2), Terminal: linux.IsTerminal(0),
		Environ: os.Environ(), Settings: append(config.Variables(), tokenVariable), Redact: c.cfg.Redactor(), Log: c.log,
	}
	if c.metrics != nil {
		l.Observe = c.metrics.Notified
	}
	if c.prefix != "" {
		dir, err := launch.NotifyDir(c.prefix, c.cfg.Name)
		if err != nil {
			c.log.Error(err, "no directory for notify sockets: using abstract ones")
			dir = ""
		}
		l.NotifyDir = dir
	}
	return l
}

// The meaning of the words in the configuration.
var (
	hups      = map[string]supervisor.HUP{"swap": supervisor.HUPSwap, "forward": supervisor.HUPForward, "ignore": supervisor.HUPIgnore}
	watchdogs = map[string]supervisor.Watchdog{"report": supervisor.WatchdogReport, "swap": supervisor.WatchdogSwap, "exit": supervisor.WatchdogExit}
	restarts  = map[string]supervisor.Restart{"never": supervisor.RestartNever, "on-failure": supervisor.RestartOnFailure, "always": supervisor.RestartAlways}
)

func (c *crank) supervisorConfig() supervisor.Config {
	ok := map[int]bool{}
	for _, code := range c.cfg.OKCodes {
		ok[code] = true
	}
	return supervisor.Config{
		Name: c.cfg.Name, Start: time.Duration(c.cfg.StartTimeout), Stop: time.Duration(c.cfg.StopTimeout),
		MaxExtend: time.Duration(c.cfg.MaxExtend), Settle: time.Duration(c.cfg.Settle), DrainDelay: time.Duration(c.cfg.DrainDelay),
		Check: c.cfg.CheckCommand(), Ready: c.readiness(), StopSignal: syscall.Signal(c.cfg.StopSignal), StopOn: c.cfg.StopOn, Group: bool(c.cfg.Group),
		HUP: hups[c.cfg.HUP], Restart: restarts[c.cfg.Restart], OKCodes: ok, MaxDraining: int(c.cfg.MaxDraining),
		Quiet: c.plainInit(), Terminal: linux.IsTerminal(0),
		Watchdog: watchdogs[c.cfg.Watchdog], WatchdogTimeout: time.Duration(c.cfg.WatchdogTimeout),
	}
}

// info describes this process for crankctl info.
func (c *crank) info() control.Info {
	i := control.Info{
		Name: c.cfg.Name, PID: os.Getpid(), Version: version.String(), Go: runtime.Version(), Started: c.started,
		Prefix: c.prefix, Conf: c.conf, Ctl: c.ctl, Settings: c.cfg.Settings(), Sockets: []control.Socket{},
		Goroutines: runtime.NumGoroutine(),
	}
	if err := cmp.Or(c.confError, c.store.Err()); err != nil {
		i.ConfError = err.Error()
	}
	if c.http != nil {
		i.HTTP = c.http.Bound()
	}
	for n, s := range c.sockets.Sockets() {
		i.Sockets = append(i.Sockets, control.Socket{Name: s.Name(), FD: 3 + n, Address: s.Address().String(), Bound: s.Bound()})
	}
	return i
}
