package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// Ticket is a swap that was accepted.
type Ticket struct {
	ID         int64 // Event.Swap of its events
	Seq        int64 // the newest event before it
	Generation int
	PID        int // its check's, if it has one; 0: nothing was executed, and Done has the outcome now or soon
	// Done carries the outcome, once, and is never closed. It has room for it: nobody needs to wait.
	Done <-chan Outcome
}

type swapCall struct {
	request Request
	reply   chan<- swapReply // 1-buffered
}

type swapReply struct {
	ticket Ticket
	err    error
}

// Swap asks for a swap. It returns once the candidate's program runs (or could not be executed, or the swap ended otherwise:
// Ticket.Done tells), or with a *Refusal, or with ctx's error. The swap continues when ctx ends.
func (s *Supervisor) Swap(ctx context.Context, r Request) (Ticket, error) {
	reply := make(chan swapReply, 1)
	answer, err := call(ctx, s, s.swaps, swapCall{r, reply}, reply)
	if err != nil {
		return Ticket{}, err
	}
	return answer.ticket, answer.err
}

// call sends c to the loop and waits for the reply.
func call[C, R any](ctx context.Context, s *Supervisor, to chan<- C, c C, reply <-chan R) (answer R, err error) {
	select {
	case to <- c:
	case <-ctx.Done():
		return answer, ctx.Err()
	case <-s.done:
		return answer, refuseStopping()
	}
	select {
	case answer = <-reply:
		return answer, nil
	case <-ctx.Done():
		return answer, ctx.Err()
	case <-s.done:
	}
	// The loop's last turn may have answered.
	select {
	case answer = <-reply:
		return answer, nil
	default:
		return answer, refuseStopping()
	}
}

// The codes of Refusal.
const (
	refusedBusy         = "busy"
	refusedPrecondition = "precondition"
	refusedDraining     = "draining"
	refusedStopping     = "stopping"
	refusedNoRollback   = "no-rollback"
	refusedNoCommand    = "no-command"
	refusedNoCandidate  = "no-candidate"
	refusedMemory       = "memory"
	refusedSelf         = "self"
)

func refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

func refuseStopping() error {
	return refuse(refusedStopping, "crank is shutting down")
}

// onSwap answers a request for a swap.
func (s *Supervisor) onSwap(c swapCall) {
	r := c.request
	answer := func(t Ticket, err error) {
		s.answers = append(s.answers, func() { c.reply <- swapReply{t, err} })
	}
	cmd, err := s.admit(r)
	if err != nil {
		s.refused(r, err)
		answer(Ticket{}, err)
		return
	}
	done := make(chan Outcome, 1)
	sw := &swap{trigger: r.Trigger, asker: r.Asker, done: done}
	sw.accepted = func(n, pid int) {
		answer(Ticket{ID: sw.id, Seq: sw.seq, Generation: n, PID: pid, Done: done}, nil)
	}
	s.begin(cmd, sw)
}

// accepted answers the request for g, unless it was answered before: its program runs, as pid, or never will.
func (s *Supervisor) accepted(g *generation, pid int) {
	if g.swap != nil && g.swap.accepted != nil {
		g.swap.accepted(g.n, pid)
		g.swap.accepted = nil
	}
}

// refused tells who watches of a swap that was not even tried.
func (s *Supervisor) refused(r Request, err error) {
	s.observer.SwapEnded(r.Trigger, ResultRefused, "", 0)
	s.record(nil, Event{Kind: "refused", Cause: err.Error(), Trigger: r.Trigger, Asker: r.Asker})
	s.log.Info("swap refused", "trigger", string(r.Trigger), "cause", err.Error(), "uid", r.Asker.UID, "asker", r.Asker.Name, "askerPID", r.Asker.PID)
}

// admit decides whether a request may begin, makes room for it where it is forced, and returns the
// command that it is for.
func (s *Supervisor) admit(r Request) (Command, error) {
	if s.shutdown != nil {
		return Command{}, refuseStopping()
	}
	if err := s.checkPreconditions(r); err != nil {
		return Command{}, err
	}
	if c := s.candidate; c != nil && !r.Force {
		return Command{}, refuse(refusedBusy, "generation %d (pid %d) is %v, asked for by %s: wait for it, abort it, or use -force", c.n, c.pid, c.state, describe(c.trigger, c.asker))
	}
	if err := s.noRoom(); err != nil {
		return Command{}, err
	}
	if s.drainingFull() && !r.Force {
		return Command{}, refuse(refusedDraining, "%d generations are still draining (-max-draining %d): wait, or use -force, which kills the oldest", s.draining(), s.cfg.MaxDraining)
	}
	cmd, err := s.commandFor(r)
	if err != nil {
		return Command{}, err
	}
	if s.candidate != nil {
		s.failCandidate(reasonReplaced, "replaced on request of "+describe(r.Trigger, r.Asker))
	}
	for s.drainingFull() {
		s.killOldest()
	}
	return cmd, nil
}

func (s *Supervisor) checkPreconditions(r Request) error {
	n, pid := 0, 0
	if s.current != nil {
		n, pid = s.current.n, s.current.pid
	}
	if r.IfGeneration != nil && *r.IfGeneration != n {
		return refuse(refusedPrecondition, "generation %d is not current: %s", *r.IfGeneration, currentText(n, pid))
	}
	if r.IfPID != nil && *r.IfPID != pid {
		return refuse(refusedPrecondition, "pid %d is not the current generation's: %s", *r.IfPID, currentText(n, pid))
	}
	return nil
}

func currentText(n, pid int) string {
	if n == 0 {
		return "none is"
	}
	return fmt.Sprintf("generation %d (pid %d) is", n, pid)
}

// commandFor returns what a request is to start.
func (s *Supervisor) commandFor(r Request) (Command, error) {
	cmd := s.cmd
	switch r.Trigger {
	case TriggerRun:
		cmd = r.Change.Apply(s.cmd)
	case TriggerRollback:
		if s.previous == nil {
			return Command{}, refuse(refusedNoRollback, "there is no earlier command to go back to: only one has been current so far, and a reload runs the same again")
		}
		cmd = *s.previous
	}
	if cmd.IsZero() {
		return Command{}, refuse(refusedNoCommand, "there is no command yet: give one, as in crankctl run -- /app")
	}
	return cmd, nil
}

// noRoom returns a refusal where a second generation does not fit beside the current one.
func (s *Supervisor) noRoom() error {
	if s.room == nil || s.current == nil {
		return nil
	}
	if err := s.room(); err != nil {
		return refuse(refusedMemory, "%v: give the container more memory, or use -memory-check warn", err)
	}
	return nil
}

// draining counts the leaving generations that were current and still run.
func (s *Supervisor) draining() int {
	n := 0
	for _, g := range s.leaving {
		if g.wasCurrent && !g.killed {
			n++
		}
	}
	return n
}

func (s *Supervisor) drainingFull() bool {
	return s.cfg.MaxDraining > 0 && s.current != nil && s.draining() >= s.cfg.MaxDraining
}

// killOldest makes room for -force.
func (s *Supervisor) killOldest() {
	for _, g := range s.leaving {
		if g.wasCurrent && !g.killed {
			s.kill(g, phaseForce, "killed to make room (-force)")
			return
		}
	}
}

// begin starts a candidate. There is none, and crank is not stopping.
func (s *Supervisor) begin(cmd Command, sw *swap) {
	s.last++
	s.lastSwap++
	sw.id, sw.began = s.lastSwap, time.Now()
	if s.current != nil {
		sw.from = s.current.n
	}
	s.restart.at = time.Time{}
	sw.seq = s.history.last() + int64(len(s.pending))
	g := &generation{n: s.last, slot: s.freeSlot(), cmd: cmd, trigger: sw.trigger, asker: sw.asker, swap: sw, swapID: sw.id, started: time.Now()}
	s.newest = g

	if s.cfg.Check != nil {
		s.check(g)
	} else {
		s.launch(g)
	}
}

// orDefault returns the first that is not 0.
func orDefault(a, b time.Duration) time.Duration {
	if a != 0 {
		return a
	}
	return b
}

// startErrorCode is the exit code that a shell would have for a program that does not start.
func startErrorCode(err error) int {
	var start *proc.StartError
	if errors.As(err, &start) {
		return start.ExitCode()
	}
	return 125
}

// becameReady is a starting candidate that has proved that it is ready.
func (s *Supervisor) becameReady(g *generation) {
	g.readyAt = time.Now()
	s.observer.BecameReady(g.readyAt.Sub(g.started))
	if s.current == nil {
		s.promote(g, "ready")
		return
	}
	s.become(g, Settling, "ready")
	if s.cfg.Settle == 0 {
		s.promote(g, "settled")
		return
	}
	g.deadline = time.Now().Add(s.cfg.Settle)
}

// promote makes the candidate current, tells the old one to drain, and answers.
func (s *Supervisor) promote(g *generation, cause string) {
	old := s.current
	s.candidate, s.current = nil, g
	g.wasCurrent, s.lastCurrent = true, g
	s.become(g, Ready, cause)
	s.fallback = nil
	s.restart.died = nil
	if old != nil {
		old.swapID = g.swapID
		s.leave(old, s.swapSignal(), s.stopLimit(old), "replaced by generation "+strconv.Itoa(g.n))
	}
	s.tendSoon()
	g.child.Promote() // it looks through all processes: the old one need not wait for that
	saved := s.remember(g.cmd)
	s.answer(g, "", Outcome{OK: true, Saved: saved})
}

// remember keeps the command that became current, here and on disk.
func (s *Supervisor) remember(cmd Command) <-chan error {
	if !s.good.IsZero() && !s.good.Equal(cmd) {
		good := s.good
		s.previous = &good
	}
	s.cmd, s.good = cmd, cmd
	if s.saver == nil {
		return nil
	}
	return s.saver.Save(cmd, s.previous)
}

// failCandidate ends the candidate's candidacy while its process runs: it is asked to stop, and
// killed soon. One that was already settling has accepted connections and drains in full when nothing
// is wrong with it.
func (s *Supervisor) failCandidate(reason, cause string) {
	g := s.candidate
	limit := s.stopLimit(g)
	drain := g.state == Settling && slices.Contains(unblamed, reason)
	if !drain {
		limit = min(limit, failedGrace)
	}
	signal := syscall.SIGTERM // it never served: there is nothing that it should finish
	switch {
	case drain && s.shutdown != nil:
		signal = s.shutdownSignal()
	case drain:
		signal = s.swapSignal()
	case reason == reasonShutdown:
		limit = min(limit, shutdownGrace)
	}
	s.candidate = nil
	g.drainsInFull = drain
	s.leave(g, signal, limit, cause)
	s.failed(g, reason, cause)
}

// failed ends the candidacy of g, which is leaving or gone, and decides what that means.
func (s *Supervisor) failed(g *generation, reason, cause string) {
	s.candidate = nil
	s.accepted(g, 0)
	log := s.log.WithValues("generation", g.n, "pid", g.pid, "reason", reason, "cause", cause, "trigger", string(g.trigger))
	if slices.Contains(unblamed, reason) {
		log.Info("generation failed")
	} else {
		log.Error(nil, "generation failed")
	}
	g.failure = reason
	if g.child != nil {
		g.child.Failed()
	}
	s.tendSoon()
	s.report(g, reason, cause)
	if s.shutdown != nil || reason == reasonReplaced || s.current != nil {
		return
	}
	switch {
	case s.restart.died != nil:
		s.diedAlone(s.restart.died)
	case g.trigger == TriggerStart && reason == reasonAborted:
		// Whoever aborted it is there to ask for another.
	case g.trigger == TriggerStart && s.fallback != nil:
		s.fallBack(cause)
	case g.trigger == TriggerStart:
		s.beginShutdown(0, "the first start failed, "+cause)
	}
}

// fallBack starts the command line's own command after a saved one has failed.
func (s *Supervisor) fallBack(why string) {
	cmd := *s.fallback
	s.fallback, s.previous = nil, nil
	s.cmd = cmd
	if s.setAside != nil {
		s.setAside(why)
	}
	s.log.Info("the saved command does not start: starting the command line's own", "cause", why)
	s.begin(cmd, &swap{trigger: TriggerStart})
}

// report is the outcome of a failed swap once the candidate's last words are complete.
type report struct {
	g      *generation
	reason string // one of Reasons, or aborted
	cause  string
	took   time.Duration
	stderr Tail
	probe  []string // what the last probe wrote to stderr
}

// report collects the candidate's stderr outside the loop, since what it is copied to may be slow.
func (s *Supervisor) report(g *generation, reason, cause string) {
	r := report{g: g, reason: reason, cause: cause, took: time.Since(g.started)}
	if reason == reasonTimeout {
		r.probe = g.probeWords
	}
	s.reporting++
	if g.child == nil {
		s.onReport(r)
		return
	}
	child := g.child
	go func() {
		r.stderr = probeTail(child.Tail(), r.probe)
		s.reports <- r // the loop does not end before it has this
	}()
}

func (s *Supervisor) onReport(r report) {
	s.reporting--
	s.record(r.g, Event{Kind: "failed", Cause: r.cause, Stderr: r.stderr, Took: r.took})
	s.answer(r.g, r.reason, Outcome{Reason: r.cause, Stderr: r.stderr})
}

// answer completes the outcome of the swap that g was started for, and sends it. reason is that of a failure.
func (s *Supervisor) answer(g *generation, reason string, o Outcome) {
	sw := g.swap
	if sw == nil {
		return
	}
	g.swap = nil
	o.Trigger, o.From, o.Generation, o.PID, o.Ended = sw.trigger, sw.from, g.n, g.pid, time.Now()
	o.Took = o.Ended.Sub(sw.began)
	o.ExitCode = -1
	if g.exit != nil {
		o.ExitCode = g.exit.Status()
	} else if g.child == nil {
		o.ExitCode = g.code
	}
	if s.current != nil {
		o.Current, o.CurrentPID = s.current.n, s.current.pid
	}
	kept := o
	kept.Saved = nil
	s.outcome = &kept
	result := ResultFailed
	if o.OK {
		result = ResultOK
	}
	s.observer.SwapEnded(o.Trigger, result, reasonLabel(reason), o.Took)
	if sw.done != nil {
		s.answers = append(s.answers, func() { sw.done <- o })
	}
}

type abortCall struct {
	asker Asker
	reply chan<- abortReply // 1-buffered
}

type abortReply struct {
	generation int
	err        error
}

// Abort stops the candidate and returns its number, or a *Refusal where there is none.
func (s *Supervisor) Abort(ctx context.Context, who Asker) (generation int, err error) {
	reply := make(chan abortReply, 1)
	answer, err := call(ctx, s, s.aborts, abortCall{who, reply}, reply)
	if err != nil {
		return 0, err
	}
	return answer.generation, answer.err
}

func (s *Supervisor) onAbort(c abortCall) {
	var r abortReply
	if g := s.candidate; g != nil {
		r.generation = g.n
		s.failCandidate(reasonAborted, describe("aborted", c.asker))
	} else {
		r.err = refuse(refusedNoCandidate, "no generation is being started: there is nothing to abort")
	}
	s.answers = append(s.answers, func() { c.reply <- r })
}

// describe says who asked, for messages.
func describe(t Trigger, a Asker) string {
	if a == (Asker{}) {
		return string(t)
	}
	return fmt.Sprintf("%s (%s, pid %d, uid %d)", t, a.Name, a.PID, a.UID)
}

// remove forgets a generation that is gone.
func (s *Supervisor) remove(g *generation) {
	s.leaving = slices.DeleteFunc(s.leaving, func(o *generation) bool { return o == g })
	g.child.Close()
	s.tendSoon()
}
