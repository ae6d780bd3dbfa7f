package config

import (
	"flag"
	"reflect"
	"testing"
	"time"
)

func TestSeconds(t *testing.T) {
	for value, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"10": {10 * time.Second, "10s"}, "0": {0, "0s"}, "0.5": {500 * time.Millisecond, "500ms"}, ".5": {500 * time.Millisecond, "500ms"},
		"1m30s": {90 * time.Second, "1m30s"}, "90": {90 * time.Second, "1m30s"}, "600": {10 * time.Minute, "10m"},
		"1h": {time.Hour, "1h"}, "3605": {time.Hour + 5*time.Second, "1h0m5s"}, "20m0s": {20 * time.Minute, "20m"}, "10h": {10 * time.Hour, "10h"},
		"250ms": {250 * time.Millisecond, "250ms"}, "-0s": {0, "0s"},
	} {
		var s Seconds
		if err := s.Set(value); err != nil || time.Duration(s) != want.d || s.String() != want.text {
			t.Errorf("Set(%q) = %v, %q, %v; want %v, %q", value, time.Duration(s), s, err, want.d, want.text)
		}
	}
}

func TestCodes(t *testing.T) {
	for value, want := range map[string]string{
		"143": "143", "0": "0", "255,0": "0,255", "1-3": "1-3", "3,2,1": "1-3", "5, 7": "5,7", "1-3,2-4,9": "1-4,9", "0-255": "0-255", "4-4": "4",
	} {
		var c Codes
		if err := c.Set(value); err != nil || c.String() != want {
			t.Errorf("Set(%q) = %q, %v; want %q", value, c, err, want)
		}
	}
	c := Codes{1, 143}
	if !c.Has(143) || c.Has(0) || c.Has(2) {
		t.Error("Has")
	}
}

// Whatever a type accepts, it prints in a form that it reads back as the same.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{
		"10", "1m30s", "0.5", "-1", "true", "0,128-143", "255-0", "USR1:TERM,TTIN:0", "1:0,2:64", "same", "RTMIN+3", "8", ":8080", "", ",", "a,b", "TERM,INT", "none",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, make := range []func() flag.Value{
			func() flag.Value { return new(Seconds) }, func() flag.Value { return new(Switch) }, func() flag.Value { return new(Count) },
			func() flag.Value { return new(StopSignal) }, func() flag.Value { return new(Rewrites) }, func() flag.Value { return new(Codes) },
			func() flag.Value { return new(Binds) }, func() flag.Value { return new(StopOn) },
		} {
			first, second := make(), make()
			if first.Set(value) != nil {
				continue
			}
			if err := second.Set(first.String()); err != nil || !reflect.DeepEqual(first, second) {
				t.Fatalf("%T: %q is %q, read back as %q, %v", first, value, first, second, err)
			}
		}
	})
}
