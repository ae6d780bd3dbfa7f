package supervisor

import "time"

// tendInterval is how often Tend is called while there is a candidate: what that does to what all share, it does to the generation that
// serves.
const tendInterval = 100 * time.Millisecond

// tend has the launcher restore what all generations share, and takes note of what it could not.
func (s *Supervisor) tend() {
	s.tendAt = time.Time{}
	if s.shutdown != nil && s.shutdown.delayUntil.IsZero() {
		return // an app may end its sockets now
	}
	if s.candidate != nil {
		s.tendAt = time.Now().Add(tendInterval)
	}
	broken := s.launcher.Tend()
	if broken == s.broken {
		return
	}
	s.broken = broken
	if broken == "" {
		s.record(nil, Event{Kind: "mended"})
		return
	}
	s.record(nil, Event{Kind: "broken", Cause: broken})
}
