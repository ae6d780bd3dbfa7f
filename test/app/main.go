// Command app is the app under test: a server that does, on request, everything that an app may do
// to its supervisor.
//
// Every flag can also be given as a variable: -ready-after as APP_READY_AFTER. What it prints, it
// prints on stdout, a line each.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/child"
)

type options struct {
	// What it serves.
	serve, body, listen string
	acceptEarly         bool
	// How it becomes ready.
	readyAfter     time.Duration
	neverReady     bool
	notify, status string
	fail           string
	errno          int
	eat            int
	// How it ends.
	exit         int
	exitAfter    time.Duration
	exitSettling bool
	die          string
	dieAfter     time.Duration
	ignoreTerm   bool
	drain        time.Duration
	// What it leaves behind and what it prints.
	orphans                          int
	orphansSetsid                    bool
	orphanLife                       time.Duration
	printEnv, printFDs, printSignals bool
	printAccepted                    bool
	stderr                           string
	orphan                           bool
	orders
	damage
}

func (o *options) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("app", flag.ContinueOnError)
	fs.StringVar(&o.serve, "serve", "http", "`what` to serve on every socket: http, echo, none")
	fs.StringVar(&o.body, "body", "", "the `text` that http answers, after the time that ?delay= says; default: generation and pid")
	fs.StringVar(&o.listen, "listen", "", "TCP `address` to bind where no socket was passed")
	fs.BoolVar(&o.acceptEarly, "accept-before-ready", false, "serve from the start")

	fs.DurationVar(&o.readyAfter, "ready-after", 0, "say READY after this time")
	fs.BoolVar(&o.neverReady, "never-ready", false, "never say READY")
	fs.StringVar(&o.notify, "notify", "socket", "`how` to say READY: socket (NOTIFY_SOCKET), fd (NOTIFY_FD), newline (s6, to NOTIFY_FD)")
	fs.StringVar(&o.status, "status", "", "say STATUS=`text` before READY")
	fs.StringVar(&o.fail, "fail", "", "say X_CRANK_FAILED=`reason` in the place of READY")
	fs.IntVar(&o.errno, "errno", 0, "say ERRNO=`number` in the place of READY")
	fs.IntVar(&o.eat, "eat", 0, "before READY use so many `MiB` of memory, and say so on stdout")

	fs.IntVar(&o.exit, "exit", -1, "exit with this `code` after -exit-after")
	fs.DurationVar(&o.exitAfter, "exit-after", 0, "counted from the start, or from READY")
	fs.BoolVar(&o.exitSettling, "exit-when-settling", false, "count -exit-after from READY")
	fs.StringVar(&o.die, "die", "", "be killed by this `signal` (a number, or a name such as SEGV) after -die-after")
	fs.DurationVar(&o.dieAfter, "die-after", 0, "counted from the start")
	fs.BoolVar(&o.ignoreTerm, "ignore-term", false, "do not end on TERM, INT and QUIT")
	fs.DurationVar(&o.drain, "drain", 10*time.Second, "how long connections have after TERM")

	fs.IntVar(&o.orphans, "orphans", 0, "start this `number` of background processes that ignore TERM")
	fs.BoolVar(&o.orphansSetsid, "orphans-setsid", false, "put each of them into a session of its own")
	fs.DurationVar(&o.orphanLife, "orphan-life", time.Minute, "so that no test leaves any for good")
	fs.BoolVar(&o.printEnv, "print-env", false, "print the environment")
	fs.BoolVar(&o.printFDs, "print-fds", false, "print the descriptors that were inherited")
	fs.BoolVar(&o.printSignals, "print-signals", false, "print every signal that comes, and do nothing else about it unless it asks to end")
	fs.BoolVar(&o.printAccepted, "print-accepted", false, "with -exit-when-settling: at the end accept no more, and write on stderr how many connections were accepted")
	fs.StringVar(&o.stderr, "stderr", "", "write this `text` and a newline to stderr")
	fs.BoolVar(&o.orphan, "orphan", false, "internal: be one of -orphans")
	o.orders.flags(fs)
	o.damage.flags(fs)
	return fs
}

// parse reads the variables, then args.
func parse(args []string) (options, error) {
	var o options
	fs := o.flags()
	var err error
	fs.VisitAll(func(f *flag.Flag) {
		name := "APP_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := os.LookupEnv(name); ok && err == nil {
			if err = fs.Set(f.Name, value); err != nil {
				err = fmt.Errorf("cannot read %s: %w", name, err)
			}
		}
	})
	if err != nil {
		return o, err
	}
	return o, fs.Parse(args)
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if descriptors := openDescriptors(); wants(args, "print-fds") {
		fmt.Println(strings.Join(descriptors, "\n"))
	}
	o, err := parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		return 2
	}
	if o.orphan && o.disguised > 0 {
		return forkDisguised(o)
	}
	if o.orphan {
		return beOrphan(o)
	}
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		return 1
	}
	return 0
}

func (o *options) run() error {
	reserveThreads()
	ctx, stop := o.asked()
	defer stop()
	o.print()
	if err := startOrphans(*o); err != nil {
		return err
	}
	o.dieLater()
	if err := o.hold(); err != nil {
		return err
	}
	if err := o.followOrder(); err != nil {
		return err
	}
	if err := o.do(atStart); err != nil {
		return err
	}
	if !o.exitSettling {
		o.exitLater(nil) // before anything is said, where that is now
	}

	s, err := o.server()
	if err != nil {
		return err
	}
	if o.acceptEarly {
		s.start(ctx)
	}
	if o.becomeReady(ctx) {
		if o.exitSettling {
			o.exitLater(s)
		}
		s.start(ctx)
	}
	if err := o.do(atReady); err != nil {
		return err
	}
	<-ctx.Done()
	err = s.wait()
	await(context.Background(), o.leaveWhen)
	return errors.Join(err, o.do(atEnd))
}

// asked returns a context that ends when the app is asked to end. What it prints of a signal is printed before that.
func (o options) asked() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	came := make(chan os.Signal, 64)
	if o.printSignals {
		signal.Notify(came)
		signal.Reset(syscall.SIGURG, syscall.SIGCHLD, syscall.SIGPIPE) // the Go runtime's own
	} else {
		signal.Notify(came, endings...) // with -ignore-term too: a handler, not SIG_IGN, which processes would inherit
	}
	go func() {
		for sig := range came {
			if o.printSignals {
				fmt.Println("signal", int(sig.(syscall.Signal)))
			}
			if slices.Contains(endings, sig) && !o.ignoreTerm {
				cancel()
			}
		}
	}()
	return ctx, cancel
}

// endings are the signals that ask an app to drain.
var endings = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}

func (o options) print() {
	if o.printEnv {
		fmt.Println(strings.Join(os.Environ(), "\n"))
	}
	if o.stderr != "" {
		fmt.Fprintln(os.Stderr, o.stderr)
	}
}

// becomeReady says what was asked for, and whether that made the app ready.
func (o options) becomeReady(ctx context.Context) bool {
	if o.neverReady {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(o.readyAfter):
	}
	if await(ctx, o.readyWhen); ctx.Err() != nil {
		return false
	}
	if o.eat > 0 {
		eat(o.eat)
	}
	if o.status != "" {
		o.say("STATUS=" + o.status)
	}
	switch {
	case o.fail != "":
		o.say("X_CRANK_FAILED=" + o.fail)
	case o.errno != 0:
		o.say(fmt.Sprintf("ERRNO=%d", o.errno))
	case o.notify == "newline":
		o.say("\n")
		return true
	default:
		o.sayReady()
		return true
	}
	return false
}

// say sends a notification; one that is not heard is the supervisor's to notice.
func (o options) say(text string) {
	if o.notify != "socket" {
		os.Unsetenv("NOTIFY_SOCKET") // child then takes NOTIFY_FD
	}
	if err := child.Notify(text); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
	}
}

// exitLater exits when the time has come; s may be nil.
func (o options) exitLater(s *server) {
	if o.exit < 0 {
		return
	}
	after(o.exitAfter, func() {
		if o.printAccepted && s != nil {
			fmt.Fprintln(os.Stderr, "accepted", s.acceptNoMore())
		}
		os.Exit(o.exit)
	})
}

// after calls end after d, or before it returns where d is 0.
func after(d time.Duration, end func()) {
	if d == 0 {
		end()
		return
	}
	time.AfterFunc(d, end)
}
