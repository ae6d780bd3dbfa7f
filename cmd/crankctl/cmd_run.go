package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/crankctl/crank/pkg/control"
)

var cmdRun = &command{
	name:    "run",
	changes: true,
	args:    "[--] [command [arg ...]]",
	summary: "swap to another command",
	details: `The new generation is started beside the current one, which keeps serving until the new one is
ready. If that fails, nothing has changed. What is not given is kept from the current command: the
command itself, -cwd, -env, -start and -stop.

Without -wait, run ends once the process is started; the outcome then shows in crankctl status.`,
	examples: []string{
		"crankctl run -wait -- /app --v2",
		"crankctl run -name server -prefix ./ -start 10 -stop 20 -wait -- ./app",
		"crankctl run -wait -env LOG_LEVEL=debug -env PROXY- -env TOKEN",
		"crankctl run -wait -generation 4 -- /app --v5",
	},
	setup: func(fs *flag.FlagSet) action {
		var r control.RunRequest
		var env []string
		declareSwap(fs, &r.SwapRequest, false)
		durationVar(fs, &r.Start, "start", "it must be ready within this `time`, else it is stopped: seconds (10) or 1m30s")
		durationVar(fs, &r.Stop, "stop", "it must be gone within this `time` once it is asked to stop")
		fs.StringVar(&r.Cwd, "cwd", "", "its working `directory`")
		fs.Func("env", "`K=V` sets a variable, K- removes it, K takes crankctl's own; repeatable", func(entry string) error {
			env = append(env, entry)
			return nil
		})
		return func(s *session, args []string) error {
			r.Command = args
			if err := completeRun(&r, env, s.env); err != nil {
				return err
			}
			p := s.watch()
			result, err := s.client.Run(s.ctx, r, p.event)
			return s.swapped(p, r.Wait, result, err)
		}
	},
}

// completeRun fills in what only crankctl knows: its own directory and variables.
func completeRun(r *control.RunRequest, env []string, own environment) (err error) {
	if r.Cwd != "" {
		if r.Cwd, err = filepath.Abs(r.Cwd); err != nil {
			return fmt.Errorf("cannot make -cwd absolute: %w", err)
		}
	}
	r.Env = nil
	for _, entry := range env {
		key, _, sets := strings.Cut(entry, "=")
		if !sets && !strings.HasSuffix(entry, "-") {
			value, ok := own.lookup(entry)
			if !ok {
				return usagef("-env %s: crankctl's own environment has no such variable", entry)
			}
			entry = entry + "=" + value
		}
		if key == "" || key == "-" {
			return usagef("-env %q: want K=V, K- or K", entry)
		}
		r.Env = append(r.Env, entry)
	}
	return nil
}

// declareSwap declares the flags of everything that swaps.
func declareSwap(fs *flag.FlagSet, r *control.SwapRequest, wait bool) {
	fs.BoolVar(&r.Wait, "wait", wait, "wait until the swap has succeeded or failed")
	fs.BoolVar(&r.Force, "force", false, "stop a generation that is just starting; where too many are leaving, kill the oldest")
	numberVar(fs, &r.PID, 1, "pid", "only if the process with this `pid` is current")
	numberVar(fs, &r.Generation, 0, "generation", "only if generation `N` is current; 0: only if none is")
}

// numberVar declares a number that may be absent.
func numberVar(fs *flag.FlagSet, into **int, least int, name, usage string) {
	fs.Func(name, usage, func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < least {
			return fmt.Errorf("want a number of at least %d", least)
		}
		*into = &n
		return nil
	})
}

// durationVar declares a duration that goes to crank as it was written.
func durationVar(fs *flag.FlagSet, into *string, name, usage string) {
	fs.Func(name, usage, func(text string) error {
		_, err := control.ParseDuration(text)
		*into = text
		return err
	})
}

// swapped ends the progress of a swap and prints its outcome.
func (s *session) swapped(p *progress, waited bool, result *control.Result, err error) error {
	p.stop()
	if result == nil {
		return err
	}
	if done, jsonErr := s.json(result); done {
		return firstError(err, jsonErr)
	}
	name := s.client.Name()
	if err != nil {
		p.tail(result.Stderr)
		if result.StderrNote != "" && len(result.Stderr) == 0 {
			fmt.Fprintf(s.stderr, "  (%s)\n", clean(result.StderrNote))
		}
		return err
	}
	switch took := compact(result.Seconds); {
	case !waited:
		s.say("started %s %d (pid %d)", name, result.Generation, result.PID)
		if !s.global.quiet {
			fmt.Fprintln(s.stderr, "whether it serves: crankctl status, or -wait")
		}
	case result.From == 0:
		s.say("started %s %d in %s", name, result.Generation, took)
	default:
		s.say("swapped %s %d -> %d in %s", name, result.From, result.Generation, took)
	}
	s.warnUnsaved(result.Saved)
	return nil
}

// warnUnsaved says that a restart of the container would not bring this command back.
func (s *session) warnUnsaved(saved control.Saved) {
	switch saved {
	case "", control.IsSaved, control.IsOff:
	case control.IsPending:
		fmt.Fprintln(s.stderr, "warning: the command is not saved yet")
	default:
		fmt.Fprintf(s.stderr, "warning: the command is not saved: %s\n", clean(string(saved)))
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
