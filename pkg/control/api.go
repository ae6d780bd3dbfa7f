// Package control is the protocol between crankctl and crank: HTTP and JSON on a unix socket.
//
// This package holds the wire types and the client and imports the standard library alone, so
// that crankctl also builds where crank itself does not. The server is in control/server.
package control

import (
	"encoding/json"
	"time"
)

// The routes. Every answer is JSON; those marked NDJSON are a stream of Progress lines of which
// the last one carries Result or Error.
const (
	PathInfo     = "/v1/info"     // GET: Info
	PathStatus   = "/v1/status"   // GET: Status
	PathReady    = "/v1/ready"    // GET: 200 or 503, Ready
	PathPS       = "/v1/ps"       // GET: []Generation, ?state=starting,ready,stopping&pid=N
	PathRun      = "/v1/run"      // POST RunRequest: NDJSON
	PathReload   = "/v1/reload"   // POST SwapRequest: NDJSON
	PathRollback = "/v1/rollback" // POST SwapRequest: NDJSON
	PathAbort    = "/v1/abort"    // POST AbortRequest: Result of the candidate that is stopped
	PathKill     = "/v1/kill"     // POST KillRequest: KillResult
	PathWait     = "/v1/wait"     // GET ?for=ready|idle|generation&generation=N: NDJSON
	PathEvents   = "/v1/events"   // GET ?follow=true&since=SEQ: NDJSON of Progress with Event only
)

// HeaderName is the header of every answer that says which crank gave it.
const HeaderName = "Crank-Name"

// The codes of Error. Those of the first group are refusals (HTTP 409, crankctl exits 4).
const (
	CodeBusy         = "busy"         // a candidate exists already
	CodePrecondition = "precondition" // -pid or -generation did not match
	CodeDraining     = "draining"     // -max-draining generations are leaving
	CodeStopping     = "stopping"     // crank is shutting down
	CodeNoRollback   = "no-rollback"  // there is no earlier good command
	CodeNoCommand    = "no-command"   // nothing given and nothing to repeat
	CodeNoCandidate  = "no-candidate" // abort with nothing to abort
	CodeReadOnly     = "read-only"    // -ctl-readonly
	CodeMemory       = "memory"       // -memory-check refuse

	CodeFailed  = "failed"  // the swap was tried and failed (in a stream; crankctl exits 1)
	CodeInvalid = "invalid" // HTTP 400, 404, 405, 413: crankctl exits 2
	CodeDenied  = "denied"  // HTTP 403: the peer's uid is neither crank's nor 0; 401: no valid token
	CodeSelf    = "self"    // HTTP 500: crank's own failure
)

// Error is the body of every answer that is not 2xx, and the last line of a stream that failed.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"` // a whole sentence: what, why, what to do
}

func (e *Error) Error() string { return e.Message }

// Refused reports whether this was not even tried: nothing has changed.
func (e *Error) Refused() bool {
	switch e.Code {
	case CodeFailed, CodeInvalid, CodeSelf:
		return false
	}
	return true
}

// Asker is who asked for something: the peer of the control socket.
type Asker struct {
	UID  int    `json:"uid"` // -1 where it cannot be known (TCP)
	PID  int    `json:"pid"`
	Name string `json:"name,omitempty"` // the peer's command name, as in /proc/PID/comm
}

// SwapRequest asks for a swap to the same command, or (rollback) to the last different good one.
type SwapRequest struct {
	// PID and Generation are preconditions: refuse unless that one is current; Generation 0 means
	// "only if none is current".
	PID        *int `json:"pid,omitempty"`
	Generation *int `json:"generation,omitempty"`
	// Force stops a candidate that is in the way, or kills the oldest leaving generation.
	Force bool `json:"force,omitempty"`
	// Wait streams until the swap has succeeded or failed; without it the stream ends when the
	// candidate's process runs (or could not be started).
	Wait bool `json:"wait,omitempty"`
}

// RunRequest is SwapRequest with a new command. What is not given is kept from the current command.
type RunRequest struct {
	SwapRequest
	Command []string `json:"command,omitempty"`
	Cwd     string   `json:"cwd,omitempty"`
	// Env holds changes: "K=V" sets, "K-" removes.
	Env []string `json:"env,omitempty"`
	// Start and Stop are Go durations in text form ("1m30s") or a number of seconds ("10").
	Start string `json:"start,omitempty"`
	Stop  string `json:"stop,omitempty"`
}

// AbortRequest asks to stop the candidate. It has no fields yet.
type AbortRequest struct{}

// KillRequest sends a signal. The states are OR, PID is AND; at least one of them is required.
type KillRequest struct {
	States []string `json:"states,omitempty"` // starting (settling too), ready, stopping
	PID    *int     `json:"pid,omitempty"`
	Signal string   `json:"signal"`         // TERM, SIGTERM or 15
	Wait   bool     `json:"wait,omitempty"` // answer when all that were signalled are gone
}

// KillResult says which generations got the signal.
type KillResult struct {
	Generations []Generation `json:"generations"`
	Signal      string       `json:"signal"`
}

// Progress is one line of a stream.
type Progress struct {
	Event  *Event  `json:"event,omitempty"`
	Result *Result `json:"result,omitempty"`
	Error  *Error  `json:"error,omitempty"`
}

// Result is the outcome of a swap, an abort or a wait.
type Result struct {
	OK         bool     `json:"ok"`
	Trigger    string   `json:"trigger,omitempty"`
	From       int      `json:"from"`                 // the generation that was current before; 0: none
	Generation int      `json:"generation"`           // the candidate
	PID        int      `json:"pid"`                  // its process; 0 where none could be started
	Current    int      `json:"current"`              // the generation that is current now; 0: none
	CurrentPID int      `json:"currentPID"`           //
	Seconds    float64  `json:"seconds"`              // from the request to the outcome
	Reason     string   `json:"reason,omitempty"`     // why it failed: "exited 3 before ready"
	ExitCode   *int     `json:"exitCode,omitempty"`   // of the candidate, where it has ended
	Stderr     []string `json:"stderr,omitempty"`     // the last lines it wrote
	StderrNote string   `json:"stderrNote,omitempty"` // "stderr not kept" where it is not read
	Saved      Saved    `json:"saved,omitempty"`
}

// Saved is IsSaved (in JSON: true), IsPending, IsOff, or the error that kept the command from being saved.
type Saved string

// The values of Saved that are no errors.
const (
	IsSaved   Saved = "true"
	IsPending Saved = "pending"
	IsOff     Saved = "off"
)

// MarshalJSON makes IsSaved the JSON value true.
func (s Saved) MarshalJSON() ([]byte, error) {
	if s == IsSaved {
		return []byte("true"), nil
	}
	return json.Marshal(string(s))
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *Saved) UnmarshalJSON(b []byte) error {
	if string(b) == "true" {
		*s = IsSaved
		return nil
	}
	return json.Unmarshal(b, (*string)(s))
}

// Event is one transition of one generation (or of crank itself, with Generation 0).
type Event struct {
	Seq        int64     `json:"seq"` // ascending, from 1
	Time       time.Time `json:"time"`
	Generation int       `json:"generation,omitempty"`
	PID        int       `json:"pid,omitempty"`
	// Kind is one of: started, ready, settled, promoted, failed, stopping, killed, exited, status,
	// requested, refused, backoff, shutdown, signal; by what the app says: reloading, reloaded, overdue (a reload
	// that does not end), missed (its watchdog), alive (again), mainpid.
	Kind    string   `json:"kind"`
	From    string   `json:"from,omitempty"` // the state before, where the event is a move
	To      string   `json:"to,omitempty"`
	Cause   string   `json:"cause,omitempty"`   // why: "SIGTERM", "exited 3 before ready"
	Status  string   `json:"status,omitempty"`  // the app's STATUS= at that time
	Seconds float64  `json:"seconds,omitempty"` // how long the state that ended lasted
	Trigger string   `json:"trigger,omitempty"` // start, hup, run, reload, rollback, restart
	Asker   *Asker   `json:"asker,omitempty"`
	Stderr  []string `json:"stderr,omitempty"` // of a failed candidate
}

// Generation is one run of the app.
type Generation struct {
	Generation int `json:"generation"`
	// Slot is CRANK_SLOT: the lowest number from 0 that no other generation had when it started.
	Slot       int       `json:"slot"`
	PID        int       `json:"pid"`
	State      string    `json:"state"` // starting, settling, ready, stopping
	Started    time.Time `json:"started"`
	AgeSeconds float64   `json:"ageSeconds"`
	// ReadySeconds is how long it took from the start to READY; absent until then.
	ReadySeconds *float64 `json:"readySeconds,omitempty"`
	// StateSeconds is how long it has been in State.
	StateSeconds float64 `json:"stateSeconds"`
	// LimitSeconds is the deadline of State, counted from its begin; absent where there is none.
	LimitSeconds *float64 `json:"limitSeconds,omitempty"`
	Status       string   `json:"status,omitempty"` // the app's own STATUS=
	Command      []string `json:"command"`
	Cwd          string   `json:"cwd,omitempty"` // the directory that it was started in, as text; absent: crank's own
	Trigger      string   `json:"trigger"`
	Asker        *Asker   `json:"asker,omitempty"` // who asked for it to be started
	// Others counts its processes besides the main one, where crank has looked (when stopping).
	Others int `json:"others,omitempty"`
	// Reloading: it reloads itself, as it said with RELOADING=1.
	Reloading bool `json:"reloading,omitempty"`
	// MissedWatchdog: it is not ready until its next WATCHDOG=1.
	MissedWatchdog bool `json:"missedWatchdog,omitempty"`
}

// Status is the whole state of one crank.
type Status struct {
	Name        string       `json:"name"`
	Ready       bool         `json:"ready"`
	Stopping    bool         `json:"stopping"`         // crank itself is shutting down
	Reason      string       `json:"reason,omitempty"` // why it is not ready
	Current     int          `json:"current"`          // 0: none
	Candidate   int          `json:"candidate"`        // 0: none
	Generations []Generation `json:"generations"`      // ascending
	// LastSwap is the outcome of the newest swap that has ended.
	LastSwap *Result `json:"lastSwap,omitempty"`
	// BackoffSeconds is the time until the next automatic restart.
	BackoffSeconds *float64  `json:"backoffSeconds,omitempty"`
	Sockets        []Socket  `json:"sockets"`
	Started        time.Time `json:"started"` // crank itself
}

// Ready is the answer of PathReady.
type Ready struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// Socket is one socket that crank holds.
type Socket struct {
	Name    string `json:"name"`
	FD      int    `json:"fd"`      // its number in the app
	Address string `json:"address"` // as it was asked for, with its name
	Bound   string `json:"bound"`   // what getsockname says
}

// Info describes the crank process itself.
type Info struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Go      string    `json:"go"`
	Started time.Time `json:"started"`
	Prefix  string    `json:"prefix,omitempty"`
	Conf    string    `json:"conf,omitempty"` // where the command is saved; empty: nowhere
	// ConfError is why Conf is empty although saving is on, or why the newest command is not saved there.
	ConfError string            `json:"confError,omitempty"`
	Ctl       string            `json:"ctl,omitempty"`
	HTTP      string            `json:"http,omitempty"` // where probes and metrics are served
	Sockets   []Socket          `json:"sockets"`
	Settings  map[string]string `json:"settings"` // every setting that is not at its default, by flag name
	Current   *Generation       `json:"current,omitempty"`
	// Goroutines is how many crank has: the same after a thousand swaps as after ten.
	Goroutines int `json:"goroutines"`
}
