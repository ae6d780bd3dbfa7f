package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

// orders are what a test has the app do at a moment of the test's choice: when a file appears.
type orders struct {
	readyWhen, leaveWhen string
	order, orderWhen     string
	killAtReady          int
	disguise             string
	disguised            int
	disguisedSays        string
}

func (o *orders) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.readyWhen, "ready-when", "", "say READY once this `file` exists")
	fs.StringVar(&o.leaveWhen, "leave-when", "", "once drained, do not end before this `file` exists")
	fs.StringVar(&o.order, "order", "", "`what` to do on -order-when, without it before READY: "+
		"daemon (start one in the background and exit 0), double-fork (start one by a process between, and go on), disguise (start orphans that show a false environment), stop (SIGSTOP), damage (what -damage says), flood (notifications from two senders while the file exists)")
	fs.StringVar(&o.orderWhen, "order-when", "", "the `file` whose existence is the order")
	fs.StringVar(&o.disguise, "disguise", "", "`what` the orphans of -order disguise show in /proc/PID/environ: huge (64 GiB) or empty; by default their own environment")
	fs.IntVar(&o.disguised, "disguised", 0, "the `number` of these orphans")
	fs.StringVar(&o.disguisedSays, "disguised-says", "", "a `text` that they send as a notification ten times a second")
	fs.IntVar(&o.killAtReady, "kill-at-ready", 0, "with READY, kill the process of this `pid`")
}

// followOrder carries out the order; one that is to come later on a goroutine that ends with the process.
func (o options) followOrder() error {
	switch {
	case o.order == "":
		return nil
	case o.orderWhen == "":
		return o.carryOut()
	}
	go func() {
		await(context.Background(), o.orderWhen)
		if err := o.carryOut(); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
		}
	}()
	return nil
}

func (o options) carryOut() error {
	switch o.order {
	case "daemon":
		o.orphans, o.orphansSetsid = 1, true
		if err := startOrphans(o); err != nil {
			return err
		}
		os.Exit(0)
	case "double-fork":
		between, err := os.StartProcess("/proc/self/exe",
			[]string{"app-between", "-serve", "none", "-orphans", "1", "-orphans-setsid", "-orphan-life", o.orphanLife.String(), "-exit", "0"},
			&os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		_, err = between.Wait()
		return err
	case "damage":
		return o.do(o.when)
	case "disguise":
		return o.startDisguised()
	case "flood":
		go o.flood()
		o.flood()
		return nil
	case "stop":
		runtime.LockOSThread() // the thread that signals itself does nothing else before it stops
		defer runtime.UnlockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGSTOP)); errno != 0 {
			return errno
		}
		return nil
	}
	return fmt.Errorf("cannot do %q", o.order)
}

// await returns when the file exists, or ctx ends; at once where there is no name.
func await(ctx context.Context, path string) {
	for path != "" && ctx.Err() == nil {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sayReady says READY=1, and kills whom it was told to in the same moment.
func (o options) sayReady() {
	o.say("READY=1")
	if o.killAtReady > 0 {
		syscall.Kill(o.killAtReady, syscall.SIGKILL)
	}
}

// flood sends notifications as fast as they are taken.
func (o options) flood() {
	for {
		if _, err := os.Stat(o.orderWhen); err != nil {
			return
		}
		for range 100 {
			o.say("STATUS=flood")
		}
	}
}
