package supervisor

import "time"

// tendInterval is how often Tend is called while there is a candidate: any damage that it does to what all generations share also hits the
// one that serves.
const tendInterval = 100 * time.Millisecond

// tendSoon makes tend act at the end of this turn of the loop, before anybody is answered.
func (s *Supervisor) tendSoon() { s.tendAt = time.Now() }

// tend makes the launcher restore what all generations share if that is due, and records what it could not restore.
func (s *Supervisor) tend() {
	if s.tendAt.IsZero() || s.tendAt.After(time.Now()) {
		return
	}
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
