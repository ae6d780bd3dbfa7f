package notify

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("x", MaxText-1) + "é"
	for _, test := range []struct {
		name, datagram string
		want           Message
	}{
		{"nothing", "", Message{}},
		{"ready", "READY=1", Message{Ready: true, Keys: []string{"READY"}}},
		{"ready with newline", "READY=1\n", Message{Ready: true, Keys: []string{"READY"}}},
		{"ready with terminator", "READY=1\x00", Message{Ready: true, Keys: []string{"READY"}}},
		{"s6", "\n", Message{Ready: true, Keys: []string{"READY"}}},
		{"two newlines", "\n\n", Message{}},
		{"not ready", "READY=0", Message{Keys: []string{"READY"}}},
		{"taken back", "READY=1\nREADY=0", Message{Keys: []string{"READY"}}},
		{"last wins", "STATUS=a\nREADY=0\nSTATUS=b\nREADY=1",
			Message{Ready: true, Status: "b", HasStatus: true, Keys: []string{"STATUS", "READY"}}},
		{"malformed keeps the last", "MAINPID=7\nMAINPID=x", Message{MainPID: 7, Keys: []string{"MAINPID"}, Malformed: 1}},
		{"case and space matter", "ready=1\n READY=1\nREADY =1\nREADY= 1", Message{Malformed: 1}},
		{"no key", "=1\nhello\nREADY", Message{Malformed: 3}},
		{"unknown", "FDSTORE=1\nX_OTHER=x=y\nNOTIFYACCESS=all", Message{}},
		{"NUL inside a line", "READY=1\nX\x00Y", Message{Void: voidNUL}},
		{"NUL at the end of a line", "READY=1\x00\nSTOPPING=1", Message{Void: voidNUL}},
		{"NUL at the start", "\x00READY=1", Message{Void: voidNUL}},
		{"two terminators", "READY=1\x00\x00", Message{Void: voidNUL}},
		{"two of only terminators", "\x00\x00", Message{Void: voidNUL}},
		{"only a terminator", "\x00", Message{}},
		{"s6 with terminator", "\n\x00", Message{Ready: true, Keys: []string{"READY"}}},
		{"lines end with CR LF", "STATUS=up\r\nREADY=1\r\n", Message{Ready: true, Status: "up", HasStatus: true, Keys: []string{"STATUS", "READY"}}},
		{"lines end with CR", "\rREADY=1\r\rWATCHDOG=1", Message{Ready: true, Watchdog: WatchdogPing, Keys: []string{"READY", "WATCHDOG"}}},
		{"a blank after the value", "READY=1 ", Message{Malformed: 1}},
		{"reload", "RELOADING=1\nMONOTONIC_USEC=18446744073709551615",
			Message{Reloading: true, MonotonicUsec: math.MaxUint64, Keys: []string{"RELOADING", "MONOTONIC_USEC"}}},
		{"numbers", "ERRNO=2\nMAINPID=42\nWATCHDOG_USEC=3000000\nEXTEND_TIMEOUT_USEC=1",
			Message{Errno: 2, MainPID: 42, WatchdogUsec: 3e6, ExtendTimeoutUsec: 1,
				Keys: []string{"ERRNO", "MAINPID", "WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC"}}},
		{"no numbers", "ERRNO=-1\nERRNO=4096\nMAINPID=0\nMAINPID=-1\nMAINPID=2147483648\nWATCHDOG_USEC=\n" +
			"EXTEND_TIMEOUT_USEC=1.5\nMONOTONIC_USEC=18446744073709551616\nMAINPID=+1\nMAINPID=0x1", Message{Malformed: 10}},
		{"watchdog off", "WATCHDOG_USEC=0", Message{Keys: []string{"WATCHDOG_USEC"}}},
		{"ping", "WATCHDOG=1", Message{Watchdog: WatchdogPing, Keys: []string{"WATCHDOG"}}},
		{"trigger", "WATCHDOG=1\nWATCHDOG=trigger", Message{Watchdog: WatchdogTrigger, Keys: []string{"WATCHDOG"}}},
		{"watchdog else", "WATCHDOG=2", Message{Malformed: 1}},
		{"barrier", "BARRIER=1", Message{Barrier: true, Keys: []string{"BARRIER"}}},
		{"failed", "X_CRANK_FAILED=no database=x", Message{Failed: "no database=x", Keys: []string{"X_CRANK_FAILED"}}},
		{"failed for nothing", "X_CRANK_FAILED=", Message{Failed: "no reason given", Keys: []string{"X_CRANK_FAILED"}}},
		{"status taken back", "STATUS=", Message{HasStatus: true, Keys: []string{"STATUS"}}},
		{"status cleaned", "STATUS=a\x1b[31mb\tc\v\u202e\xff\xfeé", Message{Status: "a [31mb c  \ufffd\ufffdé", HasStatus: true, Keys: []string{"STATUS"}}},
		{"status cut", "STATUS=" + long, Message{Status: long[:MaxText-1], HasStatus: true, Keys: []string{"STATUS"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Parse([]byte(test.datagram))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryKeyIsSetByItself(t *testing.T) {
	values := map[string]string{"WATCHDOG": "trigger"}
	for _, key := range Keys() {
		value := values[key]
		if value == "" {
			value = "1"
		}
		m := Parse([]byte(key + "=" + value))
		if !m.Has(key) || len(m.Keys) != 1 || m.Malformed != 0 {
			t.Errorf("%s=%s: %+v", key, value, m)
		}
	}
}

func TestDuration(t *testing.T) {
	for usec, want := range map[uint64]time.Duration{
		0: 0, 1: time.Microsecond, 90e6: 90 * time.Second,
		math.MaxInt64 / 1000:     math.MaxInt64 / 1000 * 1000,
		math.MaxInt64/1000 + 1:   math.MaxInt64,
		math.MaxUint64:           math.MaxInt64,
		math.MaxUint64/1000 + 10: math.MaxInt64,
	} {
		if got := Duration(usec); got != want {
			t.Errorf("Duration(%d) = %d, want %d", usec, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "\n", "READY=1", "READY=1\nSTATUS=é\x00", "STATUS=\xff\x1b", "=", "a", "MAINPID=1\nMAINPID=",
		"WATCHDOG=trigger\nBARRIER=1", "X_CRANK_FAILED=" + strings.Repeat("\xe2\x80", 300), "ERRNO=00000002",
		"READY=1\x00\nX", "\x00", "\x00\x00", "READY=1\nSTATUS=a\x00b\x00", "READY=1\r\nSTATUS=\r", "\n\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := slices.Clone(datagram)
		m := Parse(datagram)
		if !slices.Equal(before, datagram) {
			t.Fatal("datagram was changed")
		}
		if diff := cmp.Diff(m, Parse(datagram)); diff != "" {
			t.Fatal(diff)
		}
		for _, text := range []string{m.Status, m.Failed} {
			if len(text) > MaxText || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
				t.Fatalf("not clean: %q", text)
			}
		}
		for i, key := range m.Keys {
			if !slices.Contains(Keys(), key) || slices.Contains(m.Keys[:i], key) {
				t.Fatalf("keys %q", m.Keys)
			}
		}
		inside := strings.IndexByte(string(datagram), 0)
		if (m.Void != "") != (inside >= 0 && inside < len(datagram)-1) || m.Void != "" && !cmp.Equal(m, Message{Void: m.Void}) {
			t.Fatalf("%+v", m)
		}
		if m.MainPID < 0 || m.MainPID > math.MaxInt32 || m.Errno < 0 || m.Errno > maxErrno || m.Malformed < 0 {
			t.Fatalf("%+v", m)
		}
	})
}
