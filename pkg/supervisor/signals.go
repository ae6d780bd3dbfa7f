package supervisor

import (
	"slices"
	"syscall"

	"github.com/crankctl/crank/pkg/signame"
)

// defaultStopOn is what stops crank if Config does not set StopOn.
var defaultStopOn = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}

// onSignal handles a signal to crank. CHLD has a channel of its own; PIPE and URG are crank's own and never get here.
func (s *Supervisor) onSignal(signal syscall.Signal) {
	switch {
	case signal == syscall.SIGHUP:
		s.onHUP(signal)
	case slices.Contains(s.cfg.StopOn, signal):
		s.onStop(signal)
	default:
		s.forward(signal)
	}
}

// onHUP asks for a swap to the same command. It is never lost: what comes while a candidate exists,
// or while too many generations drain, sets one flag, and one swap begins as soon as it can.
func (s *Supervisor) onHUP(signal syscall.Signal) {
	if s.hungUp != nil && s.hungUp() {
		s.onStop(signal)
		return
	}
	switch {
	case s.cfg.HUP == HUPIgnore:
		s.observer.Signalled(signal, actionIgnored)
		s.log.V(1).Info("SIGHUP ignored (-hup ignore)")
	case s.cfg.HUP == HUPForward:
		s.forward(signal)
	case s.shutdown != nil:
		s.counts.DroppedHUPs++
		s.observer.Signalled(signal, actionDropped)
	case s.cmd.IsZero() && s.candidate == nil:
		s.observer.Signalled(signal, actionIgnored)
		s.ignoreHUP()
	default:
		s.observer.Signalled(signal, actionSwap)
		s.hupPending = true // advance begins it
	}
}

// ignoreHUP is a HUP before there is anything to run.
func (s *Supervisor) ignoreHUP() {
	s.log.Info("SIGHUP ignored: there is no command yet (crankctl run gives one)")
}

// forward passes a signal on to the generation that serves, else to the one that starts, else keeps
// it for the next one. A check is not an app and would die of it, and so would a process that has not executed the app yet.
func (s *Supervisor) forward(signal syscall.Signal) {
	target := s.current
	if target == nil && s.candidate != nil && !s.candidate.checking && !s.candidate.executing {
		target = s.candidate
	}
	if target == nil && s.shutdown != nil {
		target = s.lastLeaving()
	}
	switch {
	case target.live():
		s.observer.Signalled(signal, actionForwarded)
		_ = s.signal(target, signal) // logged there
	case s.shutdown == nil:
		s.observer.Signalled(signal, actionHeld)
		if !slices.Contains(s.held, signal) {
			s.held = append(s.held, signal)
		}
	default:
		s.observer.Signalled(signal, actionDropped)
	}
}

// deliverHeld passes on what came while there was nobody to get it.
func (s *Supervisor) deliverHeld(g *generation) {
	for _, signal := range s.held {
		_ = s.signal(g, signal) // logged there
	}
	s.held = nil
}

// swapSignal asks the app to drain in favour of another generation.
func (s *Supervisor) swapSignal() syscall.Signal {
	if s.cfg.StopSignal != 0 {
		return s.cfg.StopSignal
	}
	return syscall.SIGTERM
}

func signalName(signal syscall.Signal) string { return signame.Name(signal) }
