package leak

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// leakVariable says what TestLeaks is to leave behind.
const leakVariable = "LEAK_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(leakVariable) {
	case "goroutine", "descriptor":
		patience = 100 * time.Millisecond
	}
	os.Exit(Main(m, "meantToStay"))
}

// kept are what some runs leave behind.
var kept []*os.File

func TestLeaks(t *testing.T) {
	switch os.Getenv(leakVariable) {
	case "goroutine":
		go func() { select {} }()
	case "descriptor":
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, f)
	case "ending":
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			f.Close()
		}()
	case "meant to stay":
		go meantToStay()
	case "failure":
		go func() { select {} }()
		t.Error("on purpose")
	}
}

func meantToStay() { select {} }

// The checker finds what stays, and waits for what is about to end.
func TestChecker(t *testing.T) {
	if os.Getenv(leakVariable) != "" {
		return
	}
	for what, want := range map[string]string{
		"goroutine": "leak.TestLeaks.func1", "descriptor": "/dev/null", "ending": "", "meant to stay": "", "nothing": "", "failure": "on purpose",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestLeaks$")
			cmd.Env = append(os.Environ(), leakVariable+"="+what)
			out, err := cmd.CombinedOutput()
			if (err != nil) != (want != "") || !strings.Contains(string(out), want) {
				t.Errorf("%v, want %q\n%s", err, want, out)
			}
		})
	}
}
