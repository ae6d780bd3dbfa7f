package instance

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/terminal"
)

// Shell starts an interactive bash, dash or zsh on a terminal, in dir. It finds the programs in the directory bin, and no instance but its own.
func Shell(t *testing.T, name, bin, dir string) *terminal.Shell {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("NOT TESTED: %s: %s is not installed", t.Name(), name)
	}
	prefix, err := os.MkdirTemp("", "c") // short: a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(prefix) })
	return terminal.StartShell(t, path, dir, processes.Environment("PATH="+bin+":"+os.Getenv("PATH"), "CRANK_PREFIX="+prefix))
}

var bound = regexp.MustCompile(`bound=tcp[46]?://(\S+)`)

// Interrupt runs an app with a line that starts crank in the foreground, and presses Ctrl-C while a client that has had an answer
// keeps its connection. That must end crank.
func Interrupt(t *testing.T, bin, dir, line string) {
	t.Helper()
	s := Shell(t, "bash", bin, dir)
	s.Press(line + "\n")
	log := s.Await("generation ready")
	address := bound.FindStringSubmatch(log)
	if address == nil {
		t.Fatalf("crank did not log where it serves:\n%s", log)
	}
	client, err := idle(strings.Replace(address[1], "[::]", "127.0.0.1", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	began := time.Now()
	s.Press(terminal.CtrlC)
	s.Await(terminal.Prompt)
	if code := s.Code(); code != "130" {
		t.Errorf("after Ctrl-C the exit code is %s, want 130", code)
	}
	t.Logf("it ended %v after Ctrl-C", time.Since(began).Round(time.Millisecond))
	s.Exit()
}

// idle returns a connection that has had an answer, and stays open if the app keeps connections open.
func idle(address string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", response.Status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
