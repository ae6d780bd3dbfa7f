package notify

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxText is how many bytes of STATUS= and X_CRANK_FAILED= are kept.
const MaxText = 256

// keys is every key that is understood. set returns false where the value makes no sense, and then
// changes nothing.
var keys = []struct {
	name string
	set  func(m *Message, value string) bool
}{
	{"READY", func(m *Message, v string) bool { return setBool(&m.Ready, v) }},
	{"STOPPING", func(m *Message, v string) bool { return setBool(&m.Stopping, v) }},
	{"RELOADING", func(m *Message, v string) bool { return setBool(&m.Reloading, v) }},
	{"MONOTONIC_USEC", func(m *Message, v string) bool { return setUint(&m.MonotonicUsec, v) }},
	{"STATUS", func(m *Message, v string) bool { m.Status, m.HasStatus = clean(v), true; return true }},
	{"ERRNO", func(m *Message, v string) bool { return setInt(&m.Errno, v, 0, maxErrno) }},
	{"MAINPID", func(m *Message, v string) bool { return setInt(&m.MainPID, v, 1, math.MaxInt32) }},
	{"WATCHDOG", setWatchdog},
	{"WATCHDOG_USEC", func(m *Message, v string) bool { return setUint(&m.WatchdogUsec, v) }},
	{"EXTEND_TIMEOUT_USEC", func(m *Message, v string) bool { return setUint(&m.ExtendTimeoutUsec, v) }},
	{"BARRIER", func(m *Message, v string) bool { return setBool(&m.Barrier, v) }},
	{"X_CRANK_FAILED", setFailed},
}

// maxErrno is MAX_ERRNO of the kernel's include/linux/err.h.
const maxErrno = 4095

// Keys returns the name of every key that is understood.
func Keys() []string {
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	return names
}

// Message is what one datagram says. The meaning of the keys is that of sd_notify(3).
type Message struct {
	Ready, Stopping, Reloading bool
	MonotonicUsec              uint64 // CLOCK_MONOTONIC of the RELOADING=1
	Status                     string // printable UTF-8, at most MaxText bytes
	HasStatus                  bool   // an empty Status takes the old one back
	Errno                      int    // 0: none
	MainPID                    int    // 0: none. It is a number that the sender chose, not checked
	Watchdog                   Watchdog
	WatchdogUsec               uint64 // see Has: 0 may have been asked for
	ExtendTimeoutUsec          uint64
	Barrier                    bool
	Failed                     string // why the app cannot start, as Status; "": it did not say so

	Void string // why the whole datagram is ignored, in which case no other field is set; "": it is not

	Keys      []string // the understood keys with a sensible value, each once
	Malformed int      // lines that are no KEY=value, or have a value that makes no sense
}

// Why a datagram is void: ignored as a whole.
const (
	voidNUL  = "it has a NUL byte inside"
	voidLong = "it is longer than 64 KiB"
)

// Watchdog is the value of WATCHDOG=.
type Watchdog int

// The values of WATCHDOG=.
const (
	WatchdogNone    Watchdog = iota
	WatchdogPing             // WATCHDOG=1: alive
	WatchdogTrigger          // WATCHDOG=trigger: as if it had missed its time
)

// Has reports whether key was given with a sensible value.
func (m Message) Has(key string) bool { return slices.Contains(m.Keys, key) }

// Duration returns a number of microseconds as a Duration, the longest one if it does not fit.
func Duration(usec uint64) time.Duration {
	if usec > math.MaxInt64/uint64(time.Microsecond) {
		return math.MaxInt64
	}
	return time.Duration(usec) * time.Microsecond
}

// Parse reads a datagram: KEY=value lines in any order, the last one of a key counts. What it does not
// understand it leaves out. It keeps nothing of datagram.
//
// As for systemd (manager_dispatch_notify_fd in its src/core/manager.c), a datagram with a NUL byte inside is void, one NUL at the end is
// the terminator of a C string, and both LF and CR end a line.
func Parse(datagram []byte) Message {
	text := strings.TrimSuffix(string(datagram), "\x00")
	switch {
	case strings.Contains(text, "\x00"):
		return Message{Void: voidNUL}
	case text == "\n":
		text = "READY=1" // the notification of s6, https://skarnet.org/software/s6/notifywhenup.html
	}
	var m Message
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		m.parseLine(line)
	}
	return m
}

func (m *Message) parseLine(line string) {
	name, value, ok := strings.Cut(line, "=")
	if !ok || name == "" {
		m.Malformed++
		return
	}
	for _, k := range keys {
		if k.name != name {
			continue
		}
		if !k.set(m, value) {
			m.Malformed++
		} else if !m.Has(k.name) {
			m.Keys = append(m.Keys, k.name)
		}
		return
	}
}

func setBool(b *bool, value string) bool {
	if value != "0" && value != "1" {
		return false
	}
	*b = value == "1"
	return true
}

func setUint(n *uint64, value string) bool {
	v, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return false
	}
	*n = v
	return true
}

func setInt(n *int, value string, lowest, highest uint64) bool {
	v, err := strconv.ParseUint(value, 10, 64)
	if err != nil || v < lowest || v > highest {
		return false
	}
	*n = int(v)
	return true
}

func setWatchdog(m *Message, value string) bool {
	switch value {
	case "1":
		m.Watchdog = WatchdogPing
	case "trigger":
		m.Watchdog = WatchdogTrigger
	default:
		return false
	}
	return true
}

func setFailed(m *Message, value string) bool {
	m.Failed = clean(value)
	if m.Failed == "" {
		m.Failed = "no reason given"
	}
	return true
}

// clean makes s fit for one line of a terminal or a log: what would move the cursor, change the
// direction of writing or is no UTF-8 is replaced, and what is over MaxText cut off between characters.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsGraphic(r) {
			r = ' '
		}
		if b.Len()+utf8.RuneLen(r) > MaxText {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
