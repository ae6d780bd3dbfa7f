package config

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/signame"
)

// Every type here is a flag.Value for its flag and an envconfig.Decoder for its variable. An error
// of Set says what is wanted; the caller names the setting and quotes the value.

// decode is Set for a variable: an empty one, which a template easily leaves, is not set.
func decode(v flag.Value, text string) error {
	if text == "" {
		return nil
	}
	return v.Set(text)
}

// Seconds is a duration that is never negative. It is written as a number of seconds ("10", "0.5")
// or as a Go duration ("1m30s").
type Seconds time.Duration

func (s *Seconds) Set(value string) error {
	if value != "" && strings.Trim(value, "0123456789.") == "" {
		value += "s"
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return errors.New("want a number of seconds (10) or a Go duration (1m30s)")
	case d < 0:
		return errors.New("want no negative duration")
	}
	*s = Seconds(d)
	return nil
}

func (s *Seconds) Decode(value string) error { return decode(s, value) }

// String returns the short form, 10m and not 10m0s.
func (s Seconds) String() string {
	text := time.Duration(s).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Switch is a bool.
type Switch bool

func (s *Switch) Set(value string) error {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return errors.New("want true or false")
	}
	*s = Switch(b)
	return nil
}

func (s *Switch) Decode(value string) error { return decode(s, value) }
func (s Switch) String() string             { return strconv.FormatBool(bool(s)) }

// IsBoolFlag lets the flag stand alone.
func (s *Switch) IsBoolFlag() bool { return true }

// Count is a number from 0.
type Count int

func (n *Count) Set(value string) error {
	i, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return errors.New("want a number from 0")
	}
	*n = Count(i)
	return nil
}

func (n *Count) Decode(value string) error { return decode(n, value) }
func (n Count) String() string             { return strconv.Itoa(int(n)) }

// Binds are the sockets in order, as they were written.
type Binds []string

var errBind = errors.New("want [NAME=]URI, for example 127.0.0.1:8080 or unix:///run/app.sock")

// Set adds one: each -bind is one socket, and its path may have a comma.
func (b *Binds) Set(value string) error {
	if strings.TrimSpace(value) == "" {
		return errBind
	}
	*b = append(*b, value)
	return nil
}

// Decode takes a comma list. Space around an element is dropped, and so is an empty one.
func (b *Binds) Decode(value string) error {
	if value == "" {
		return nil
	}
	*b = nil
	for one := range strings.SplitSeq(value, ",") {
		if one = strings.TrimSpace(one); one != "" {
			*b = append(*b, one)
		}
	}
	if len(*b) == 0 {
		return errBind
	}
	return nil
}

func (b Binds) String() string { return strings.Join(b, ",") }

// StopSignal is the signal that asks the app to drain; 0 is "same".
type StopSignal syscall.Signal

func (s *StopSignal) Set(value string) error {
	if value == "same" {
		*s = 0
		return nil
	}
	sig, err := signame.Parse(value)
	if err != nil {
		return fmt.Errorf("want same or a signal: %w", err)
	}
	*s = StopSignal(sig)
	return nil
}

func (s *StopSignal) Decode(value string) error { return decode(s, value) }

func (s StopSignal) String() string {
	if s == 0 {
		return "same"
	}
	return short(syscall.Signal(s))
}

// StopOn lists the signals that stop crank, in the order given, each once. It may be empty: "none".
type StopOn []syscall.Signal

func (s *StopOn) Set(value string) error {
	signals := StopOn{}
	for name := range strings.SplitSeq(value, ",") {
		if value == "none" {
			break
		}
		sig, err := parseStopOn(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		if !slices.Contains(signals, sig) {
			signals = append(signals, sig)
		}
	}
	*s = signals
	return nil
}

func parseStopOn(name string) (syscall.Signal, error) {
	sig, err := signame.Parse(name)
	switch {
	case err != nil:
		return 0, fmt.Errorf("want none or a list such as TERM,INT,QUIT: %w", err)
	case slices.Contains(deaf, sig):
		return 0, fmt.Errorf("crank cannot receive %s", short(sig))
	case slices.Contains(ownSignals, sig):
		return 0, fmt.Errorf("%s is crank's own signal", short(sig))
	case sig == syscall.SIGHUP:
		return 0, errors.New("-hup decides what HUP does: use -rewrite HUP:TERM to stop crank with it")
	}
	return sig, nil
}

func (s *StopOn) Decode(value string) error { return decode(s, value) }

func (s StopOn) String() string {
	if len(s) == 0 {
		return "none"
	}
	var names []string
	for _, sig := range s {
		names = append(names, short(sig))
	}
	return strings.Join(names, ",")
}

// Rewrites says as what a signal to crank counts; 0 drops it. A signal is rewritten once.
type Rewrites map[syscall.Signal]syscall.Signal

var (
	// ownSignals never leave crank.
	ownSignals = []syscall.Signal{syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG}
	// deaf are those that no program can catch, and the one that the Go runtime keeps to itself
	// (runtime/signal_unix.go, sighandler).
	deaf = []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGPROF}
)

func (r *Rewrites) Set(value string) error {
	parsed := Rewrites{}
	for pair := range strings.SplitSeq(value, ",") {
		in, out, err := parseRewrite(strings.TrimSpace(pair))
		if err != nil {
			return err
		}
		if _, twice := parsed[in]; twice {
			return fmt.Errorf("%s is rewritten twice", short(in))
		}
		parsed[in] = out
	}
	*r = parsed
	return nil
}

func parseRewrite(pair string) (in, out syscall.Signal, err error) {
	from, to, ok := strings.Cut(pair, ":")
	if !ok {
		return 0, 0, fmt.Errorf("%q is no IN:OUT: want a list such as USR1:TERM,TTIN:0", pair)
	}
	if in, err = signame.Parse(from); err != nil {
		return 0, 0, err
	}
	if slices.Contains(deaf, in) {
		return 0, 0, fmt.Errorf("crank cannot receive %s", short(in))
	}
	if to != "0" {
		if out, err = signame.Parse(to); err != nil {
			return 0, 0, err
		}
	}
	for _, sig := range []syscall.Signal{in, out} {
		if slices.Contains(ownSignals, sig) {
			return 0, 0, fmt.Errorf("%s is crank's own signal and never passed on", short(sig))
		}
	}
	return in, out, nil
}

func (r *Rewrites) Decode(value string) error { return decode(r, value) }

// String is in the order of IN.
func (r Rewrites) String() string {
	var pairs []string
	for in := syscall.Signal(1); in <= 64; in++ {
		if out, ok := r[in]; ok && out == 0 {
			pairs = append(pairs, short(in)+":0")
		} else if ok {
			pairs = append(pairs, short(in)+":"+short(out))
		}
	}
	return strings.Join(pairs, ",")
}

func short(sig syscall.Signal) string { return strings.TrimPrefix(signame.Name(sig), "SIG") }

// Codes are exit codes, ascending and each once.
type Codes []int

// Has reports whether code is among them.
func (c Codes) Has(code int) bool { return slices.Contains(c, code) }

func (c *Codes) Set(value string) error {
	var codes Codes
	for part := range strings.SplitSeq(value, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 8)
		to, err2 := strconv.ParseUint(last, 10, 8)
		if err1 != nil || err2 != nil || from > to {
			return errors.New("want exit codes from 0 to 255 and ranges of them, such as 143 or 0,128-143")
		}
		for code := int(from); code <= int(to); code++ {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	*c = slices.Compact(codes)
	return nil
}

func (c *Codes) Decode(value string) error { return decode(c, value) }

// String joins neighbours to ranges.
func (c Codes) String() string {
	var parts []string
	for i := 0; i < len(c); {
		end := i
		for end+1 < len(c) && c[end+1] == c[end]+1 {
			end++
		}
		part := strconv.Itoa(c[i])
		if end > i {
			part += "-" + strconv.Itoa(c[end])
		}
		parts = append(parts, part)
		i = end + 1
	}
	return strings.Join(parts, ",")
}

// text is a string of any content.
type text string

func (t *text) Set(value string) error { *t = text(value); return nil }
func (t *text) String() string         { return string(*t) }
