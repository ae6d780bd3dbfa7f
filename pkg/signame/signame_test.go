package signame

import (
	"strings"
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"TERM": 15, "SIGTERM": 15, "15": 15, "term": 15, "SigTerm": 15, "1": 1, "31": 31, "HUP": 1,
		"WINCH": 28, "SYS": 31, "IOT": 6, "SIGCLD": 17, "POLL": 29, "SIGIO": 29,
		"35": 35, "64": 64, "RTMIN+1": 35, "SIGRTMIN+3": 37, "rtmin+30": 64, "RTMAX": 64, "RTMAX-29": 35, "SIGRTMAX-0": 64,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "SIG", "0", "-1", "65", "256", "1.5", "+15", " TERM", "TERM ", "FOO", "SIGSIGTERM", "15x", "EXIT",
		"32", "33", "34", "RTMIN", "RTMIN+0", "RTMIN+31", "RTMIN-1", "RTMAX-30", "RTMAX-31", "RTMAX+1", "RTMIN+", "RTMIN+-1", "RTMIN+x",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", text, got)
		} else if !strings.Contains(err.Error(), `"`+text+`"`) {
			t.Errorf("Parse(%q): %q does not quote it", text, err)
		}
	}
}

// Every signal that crank can forward has a name that is read back as itself.
func TestNameRoundTrip(t *testing.T) {
	for n := 1; n <= 64; n++ {
		sig := syscall.Signal(n)
		got, err := Parse(Name(sig))
		if n >= 32 && n <= 34 {
			if err == nil {
				t.Errorf("Parse(%q) was accepted", Name(sig))
			}
			continue
		}
		if err != nil || got != sig {
			t.Errorf("Parse(Name(%d) = %q) = %d, %v", n, Name(sig), got, err)
		}
	}
}

func TestName(t *testing.T) {
	for sig, want := range map[syscall.Signal]string{
		15: "SIGTERM", 1: "SIGHUP", 35: "SIGRTMIN+1", 64: "SIGRTMIN+30", 34: "SIGRTMIN",
		0: "signal 0", 32: "signal 32", 65: "signal 65", -1: "signal -1",
	} {
		if got := Name(sig); got != want {
			t.Errorf("Name(%d) = %q, want %q", sig, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"TERM", "SIGRTMIN+3", "RTMAX-2", "15", "0", "", "SIG", "34"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sig, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(Name(sig)); err != nil || again != sig {
			t.Fatalf("Parse(%q) = %d, read back as %d, %v", text, sig, again, err)
		}
	})
}
