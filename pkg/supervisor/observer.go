package supervisor

import (
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/proc"
)

// Observer is told what happens, for whoever counts it; what only adds up is in Counters. Its methods
// are called by Run's goroutine in the middle of its work: they must not block, nor call the Supervisor.
type Observer interface {
	// SwapEnded: result is one of Results; reason, where it has failed, one of Reasons, else empty.
	// took is the time since the request, 0 for one that was refused.
	SwapEnded(trigger Trigger, result, reason string, took time.Duration)
	// BecameReady: a generation said READY, took after it was launched.
	BecameReady(took time.Duration)
	// Stopped: nothing is left of a generation, took after it was asked to stop.
	Stopped(took time.Duration)
	// Exited: the main process of a generation in this state has ended. cause is one of ExitCauses.
	Exited(in State, cause string)
	// Killed: a generation was killed by crank. phase is one of KillPhases.
	Killed(phase string)
	// Signalled: a signal came to crank, and action, one of Actions, is what it led to.
	Signalled(signal syscall.Signal, action string)
}

// The closed lists of what an Observer is told.
var (
	Triggers   = []Trigger{TriggerStart, TriggerHUP, TriggerRun, TriggerReload, TriggerRollback, TriggerRestart}
	Results    = []string{ResultOK, ResultFailed, ResultRefused}
	Reasons    = []string{reasonExec, reasonExit, reasonSignal, reasonTimeout, reasonReported, reasonSettle, reasonCheck, reasonProbe, reasonReplaced, reasonShutdown}
	States     = []State{Starting, Settling, Ready, Stopping}
	ExitCauses = []string{"exit", "signal", "killed"} // killed: by crank, as in KillPhases
	KillPhases = []string{phaseStart, phaseDrain, phaseForce, phaseShutdown}
	Actions    = []string{actionForwarded, actionSwap, actionStop, actionIgnored, actionDropped, actionHeld}
)

// The results of a swap.
const (
	ResultOK      = "ok"
	ResultFailed  = "failed"
	ResultRefused = "refused" // not even tried
)

const (
	phaseStart    = "start"    // a candidate that had failed was not gone in time
	phaseDrain    = "drain"    // one that had served was not gone in time
	phaseForce    = "force"    // to make room for another
	phaseShutdown = "shutdown" // crank was on its way out

	actionForwarded = "forwarded" // to the app
	actionSwap      = "swap"      // as many as come during one swap lead to one more
	actionStop      = "stop"      // crank stops, or hurries
	actionIgnored   = "ignored"   // by -hup ignore, or with nothing to start
	actionDropped   = "dropped"   // crank stops: there is no swap, or nobody left to get it
	actionHeld      = "held"      // for the next generation
)

// Why a candidate failed.
const (
	reasonExec     = "exec"     // it could not be executed
	reasonExit     = "exit"     // it exited before it was ready
	reasonSignal   = "signal"   // it was killed before it was ready
	reasonTimeout  = "timeout"  // it was not ready in time
	reasonReported = "reported" // it said so itself
	reasonSettle   = "settle"   // it ended while it settled
	reasonCheck    = "check"    // -check did not exit 0
	reasonProbe    = "probe"    // the address of its probe is never valid
	reasonReplaced = "replaced" // somebody wanted another one instead
	reasonShutdown = "shutdown" // crank ends
	reasonAborted  = "aborted"  // somebody wanted none
)

// unblamed are the reasons with which nothing is wrong with the candidate itself: one that has
// accepted connections may finish them.
var unblamed = []string{reasonReplaced, reasonAborted, reasonShutdown}

// reasonLabel folds what nobody tells apart in numbers: an operator replaced it with another, or with nothing.
func reasonLabel(reason string) string {
	if reason == reasonAborted {
		return reasonReplaced
	}
	return reason
}

// exitCause tells a death that crank caused from one that it did not.
func exitCause(g *generation, e proc.Exit) string {
	switch {
	case e.Signal == syscall.SIGKILL && g.killed:
		return "killed"
	case e.Signal != 0:
		return "signal"
	}
	return "exit"
}

// latePhase says for which time limit g, which is stopping, was too slow.
func (s *Supervisor) latePhase(g *generation) string {
	switch {
	case s.shutdown != nil:
		return phaseShutdown
	case g.wasCurrent:
		return phaseDrain
	}
	return phaseStart
}

// nobody is the Observer where there is none.
type nobody struct{}

func (nobody) SwapEnded(Trigger, string, string, time.Duration) {}
func (nobody) BecameReady(time.Duration)                        {}
func (nobody) Stopped(time.Duration)                            {}
func (nobody) Exited(State, string)                             {}
func (nobody) Killed(string)                                    {}
func (nobody) Signalled(syscall.Signal, string)                 {}
