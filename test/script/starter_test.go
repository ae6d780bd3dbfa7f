package script

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/crankctl/crank/test/ports"
	"github.com/crankctl/crank/test/processes"
)

// TestServerStarter compares the variables of -profile server-starter with those of the real start_server(1), for two generations.
func TestServerStarter(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("start_server"); err != nil {
		t.Skip("NOT TESTED: start_server beside crank: libserver-starter-perl is not installed")
	}
	for _, test := range []struct{ name, starter, crank string }{ // A to E are ports, DIR is a directory
		{"TCP", "--port 127.0.0.1:A", "-bind 127.0.0.1:A"},
		{"all addresses", "--port A", "-bind :A"},
		{"all addresses of IPv4", "--port A", "-bind tcp4://:A"},
		{"all addresses, by their name", "--port 0.0.0.0:A", "-bind 0.0.0.0:A"},
		{"localhost", "--port localhost:A", "-bind localhost:A"},
		{"IPv6", "--port [::1]:A --port [::]:B", "-bind [::1]:A -bind tcp6://:B"},
		{"IPv6 by its name", "--port [::]:A", "-bind [::]:A"},
		{"UDP", "--port uA --port 127.0.0.1:uB --port [::1]:uC", "-bind udp://:A -bind udp://127.0.0.1:B -bind udp6://[::1]:C"},
		{"unix", "--path DIR/a.sock", "-bind DIR/a.sock"},
		{"paths are last", "--path DIR/a.sock --port A --path DIR/b=1.sock --port uB", "-bind DIR/a.sock -bind :A -bind DIR/b=1.sock -bind udp://:B"},
		{"all", "--port A --port 127.0.0.1:B --port uC --port [::1]:D --port localhost:E --path DIR/a.sock",
			"-bind :A -bind 127.0.0.1:B -bind udp://:C -bind [::1]:D -bind localhost:E -bind DIR/a.sock"},
		{"no socket", "", "-hup swap"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "s") // short: the path of a socket has 107 bytes
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			fill := strings.NewReplacer("DIR", dir, "A", ports.Unused(), "B", ports.Unused(), "C", ports.Unused(), "D", ports.Unused(), "E", ports.Unused())
			starter := append([]string{"start_server", "--interval", "0"}, strings.Fields(fill.Replace(test.starter))...)
			crank := append([]string{"crank", "-profile", "server-starter", "-prefix", dir, "-ready", "none", "-settle", "0"}, strings.Fields(fill.Replace(test.crank))...)
			want, got := starterVariables(t, starter), starterVariables(t, crank)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("of start_server -, of crank +:\n%s", diff)
			}
		})
	}
}

// starterVariables returns the variables that two generations get, without the numbers of the descriptors. There are some already.
func starterVariables(t *testing.T, command []string) (generations [][]string) {
	t.Helper()
	cmd := exec.Command(command[0], slices.Concat(command[1:], []string{"--", "sh", "-c", "env | grep ^SERVER_STARTER | sort; echo .; exec sleep 60"})...)
	cmd.Env = processes.Environment("SERVER_STARTER_PORT=9=9", "SERVER_STARTER_GENERATION=9")
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	variables := []string{}
	for lines := bufio.NewScanner(out); len(generations) < 2 && lines.Scan(); {
		if line := lines.Text(); line != "." {
			if strings.HasPrefix(line, "SERVER_STARTER_PORT=") {
				line = starterFD.ReplaceAllString(line, "=N$1")
			}
			variables = append(variables, line)
			continue
		}
		generations, variables = append(generations, variables), nil
		if len(generations) < 2 {
			signal(t, cmd, syscall.SIGHUP)
		}
	}
	signal(t, cmd, syscall.SIGTERM)
	_ = cmd.Wait() // the app ends by the signal, and crank with its code
	if len(generations) != 2 {
		t.Fatalf("%v: %d generations\n%s", command, len(generations), log.String())
	}
	return generations
}

var starterFD = regexp.MustCompile(`=[0-9]+(;|$)`)

func signal(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
