package servers

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/ports"
)

// restarts of each server that cannot overlap with itself.
const restarts = 5

// A server that locks its data is restarted while crank holds its socket: nobody is refused, the connections that
// come meanwhile wait. A second one beside it fails, and costs the first nothing.
func TestSocketKept(t *testing.T) {
	i := restarted(t, server{name: "mariadb", ask: askMariaDB})
	load := gather(func() func() (string, error) {
		return func() (string, error) { return i.request("/") }
	})
	i.refuses()
	for range restarts {
		before := load.report().Requests
		i.restart()
		for deadline := time.Now().Add(patience); load.report().Requests < before+20; {
			if time.Now().After(deadline) {
				t.Fatal("the clients get no answers after the restart")
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	seen := load.stop()
	// A connection that it has accepted, and not yet greeted when it is stopped, is closed: at most one for each client.
	if seen.Lost > restarts*clients || strings.Contains(fmt.Sprint(seen.Errors), "refused") {
		t.Errorf("%d connections of %d were lost: %v", seen.Lost, seen.Requests, seen.Errors)
	}
	t.Logf("%s %s: %d restarts, %d connections, %d closed without a greeting, none refused, longest wait %v",
		i.name, i.version(), restarts, seen.Requests, seen.Lost, seen.Longest.Round(time.Millisecond))
}

// A server that binds its port itself is restarted, and crank's "ready" is the time from which it answers. A second
// one beside it fails, and costs the first nothing.
func TestRestartGated(t *testing.T) {
	for _, s := range []server{
		{name: "redis", ask: askRedis},
		{name: "postgresql", ask: askPostgreSQL},
	} {
		t.Run(s.name, func(t *testing.T) {
			ownPort := ports.Unused()
			port := map[string]string{"redis": "6379", "postgresql": "5432"}[s.name]
			s.change = []string{port, ownPort}
			i := restarted(t, s)
			i.address = []string{net.JoinHostPort("127.0.0.1", ownPort)}
			i.refuses()
			var longest time.Duration
			for n := range restarts {
				began := time.Now()
				i.restart()
				longest = max(longest, time.Since(began))
				if _, err := i.request("/"); err != nil {
					t.Errorf("restart %d: crank says ready, but: %v", n+1, err)
				}
			}
			t.Logf("%s %s: %d restarts, each answers as soon as crank says ready, longest %v", s.name, i.version(), restarts, longest.Round(time.Millisecond))
		})
	}
}

// restarted starts a server of a recipe that is for restarts. It is stopped at the end of the test.
func restarted(t *testing.T, s server) *instance {
	t.Helper()
	if !*all {
		t.Skip("only with -all")
	}
	r := installed(t, s)
	if r == nil {
		t.SkipNow()
	}
	return start(t, s, r)
}

// refuses swaps to a second one beside the first, which cannot become ready.
func (i *instance) refuses() {
	i.t.Helper()
	if _, err := i.request("/"); err != nil {
		i.t.Fatal(err)
	}
	out, err := i.command("crankctl", "-timeout", patience.String(), "run", "-wait", "-start", "8s").CombinedOutput()
	if err == nil {
		i.t.Fatalf("two of them run at the same time:\n%s", out)
	}
	i.t.Logf("a second one beside the first: %s", out)
	if _, err := i.request("/"); err != nil {
		i.t.Errorf("after a swap that failed: %v", err)
	}
}

// restart ends the current generation, and waits until the next one is ready.
func (i *instance) restart() {
	i.t.Helper()
	i.crankctl("kill", "-ready", "-wait")
	i.crankctl("wait", "-ready")
}

// askMariaDB reads the greeting, with which the server speaks first.
func askMariaDB(i *instance, _ string) (string, error) {
	return converse(i, func(_ net.Conn, in *bufio.Reader) (string, error) {
		packet, err := in.Peek(5) // length, number, and 10, the version of the protocol
		if err == nil && packet[4] != 10 {
			err = fmt.Errorf("the greeting begins with % x", packet)
		}
		return "version 1", err
	})
}

func askRedis(i *instance, _ string) (string, error) {
	return converse(i, func(conn net.Conn, in *bufio.Reader) (string, error) {
		if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
			return "", err
		}
		return in.ReadString('\n')
	})
}

// askPostgreSQL asks for encryption, which is answered before anything else is said.
func askPostgreSQL(i *instance, _ string) (string, error) {
	return converse(i, func(conn net.Conn, in *bufio.Reader) (string, error) {
		if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
			return "", err
		}
		answer, err := in.ReadByte()
		return string(answer), err
	})
}

// A server in Go as its authors write it: http.Server.Shutdown drains, but for what a client sends on a connection that
// is kept alive just when it is closed.
func TestShutdown(t *testing.T) {
	if !*all {
		t.Skip("only with -all")
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "shutdown"), "./testdata/shutdown").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := server{name: "net/http", readyBy: "READY=1", drainedBy: "TERM", closes: "Shutdown closes idle connections",
		loses: 1, since: "Shutdown may forget a connection that is just being accepted"}
	r := &recipe{dir: "testdata/shutdown", packages: []string{"golang"}, workdir: "/srv/app", command: []string{"shutdown"},
		files: map[string]string{"/srv/app/greeting": "greeting"}, env: []string{"CRANK_BIND=tcp4://0.0.0.0:8080"}}
	var table report
	table.add(swapped(t, s, r))
	t.Logf("\n%s", table.String())
}
