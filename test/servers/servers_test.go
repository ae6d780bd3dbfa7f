// Package servers swaps real servers, as Debian ships them, under load: each is started by crank exactly as
// its recipe in deploy/recipes says, so that what a user copies is what was tested.
//
// A recipe's Dockerfile is read, not built: its packages must be installed on this machine, the files that it
// copies are put into a temporary directory, its ENV, WORKDIR, USER and CMD are used as they stand. Only
// addresses, ports and paths are replaced (see recipe).
//
// By itself the test takes the core servers, with -all every one. One that is not installed is said loudly, and is
// an error with REQUIRE_SERVERS=1:
//
//	go test -v ./test/servers -all
//	go test -v ./test/servers -all -run 'TestServers/all/^nginx$'
//
// # Adding a server
//
// Write deploy/recipes/NAME with a Dockerfile of the same shape as the others, and "version 1" in a file that only a
// new generation reads. Then add a row to servers, from any file of this package:
//
//	func init() { servers = append(servers, server{name: "NAME", readyBy: "READY=1", drainedBy: "TERM"}) }
//
// A server that does not speak HTTP says in ask how a client asks it once. One that cannot overlap with
// itself has no row: its test starts it with start and judges for itself.
package servers

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/root"
)

// server is a row of the table. What starts it is in its recipe.
type server struct {
	name   string // of its test
	recipe string // a directory in deploy/recipes; empty: name
	core   bool   // also tested without -all

	readyBy, drainedBy string // for the table

	// ask sends one request on a connection of its own and returns the answer, of which the first
	// line is "version N". The path is "/", or "/slow" for an answer that takes 2 s. nil: HTTP.
	ask     func(i *instance, path string) (string, error)
	uploads bool // its slow requests are slow since their body comes late: there is no slow answer

	change []string // pairs: further replacements in the recipe's files
	paths  []string // further paths of the recipe that must be in the temporary directory

	// surroundings is what a shell, as root, makes in a mount namespace for crank and the server.
	surroundings string

	// What it may lose, and why; the recipe has the evidence.
	losesSlow string // requests that are under way at the stop signal
	closes    string // connections that are kept alive and idle then: a client that never repeats loses what is on its way to them
	loses     int    // at each stop signal, at most so many further requests
	since     string // why it loses those
	exit      int    // crank's exit code at the end
}

// servers are tested in this order.
var servers = []server{
	{name: "nginx", core: true, readyBy: "-ready 1s", drainedBy: "QUIT"},
	{name: "nginx, keep-alive", recipe: "nginx", core: true, readyBy: "-ready 1s", drainedBy: "QUIT",
		change: []string{"keepalive_timeout 0;", "keepalive_timeout 65;"}, closes: "QUIT closes idle connections"},
	{name: "gunicorn", core: true, readyBy: "READY=1", drainedBy: "TERM"},
	{name: "puma", core: true, readyBy: "READY=1", drainedBy: "TERM"},
	{name: "php-fpm", core: true, readyBy: "READY=1", drainedBy: "QUIT", ask: askFastCGI},
	{name: "haproxy", core: true, readyBy: "READY=1", drainedBy: "USR1"},
	{name: "node", core: true, readyBy: "READY=1", drainedBy: "TERM"},
}

var (
	all      = flag.Bool("all", false, "test every server of the table, not only the core")
	required = os.Getenv("REQUIRE_SERVERS") != ""
)

const (
	swaps    = 10
	atOnce   = 2                // servers that are tested at a time
	patience = 90 * time.Second // for a single thing on a busy machine; nothing is asserted about less
)

// bin is where crank and crankctl are.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // where Debian has servers
	os.Exit(programs.Main(m, &bin))
}

func TestServers(t *testing.T) {
	var table report
	t.Run("all", func(t *testing.T) {
		slots := make(chan struct{}, atOnce)
		for _, s := range servers {
			if !s.core && !*all {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				if found := installed(t, s); found != nil {
					table.add(swapped(t, s, found))
				}
			})
		}
	})
	t.Logf("\n%s", table.String())
}

// installed reads the recipe of s, and says loudly if what it needs is not on this machine.
func installed(t *testing.T, s server) *recipe {
	t.Helper()
	r, err := readRecipe(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.missing(); err != nil {
		message := fmt.Sprintf("NOT TESTED, %v: %s (Debian: %s)", err, s.name, strings.Join(r.packages, " "))
		if required {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	if s.surroundings != "" && !root.Full() {
		t.Skipf("NOT TESTED, only root can: %s", s.name)
	}
	return r
}

// swapped swaps s under load and returns what that was like.
func swapped(t *testing.T, s server, r *recipe) row {
	i := start(t, s, r)
	i.answers("version 1")
	load := i.load()
	load.wait(t, 100)
	for n := 2; n <= swaps+1; n++ {
		i.place(n)
		slow := i.begin()
		i.reload()
		slow.enough(n - 1)
		i.answers(fmt.Sprint("version ", n))
		load.wait(t, 20)
		i.drains = append(i.drains, slow)
	}
	seen := load.stop(t, s)
	i.idle()
	i.stop()

	row := row{server: s, version: r.version(), swaps: swaps, traffic: seen}
	row.failed += len(i.failed)
	row.errors = append(row.errors, i.failed...)
	for _, slow := range i.drains {
		row.count(t, slow)
	}
	row.judge(t)
	return row
}

// judge fails the test if a request was lost that s must not lose, or if the load has not seen every version.
func (r *row) judge(t *testing.T) {
	t.Helper()
	if r.failed > r.loses*(swaps+1) {
		t.Errorf("%d requests failed:\n%v", r.failed, errors.Join(r.errors...))
	}
	for n := 1; n <= swaps+1; n++ {
		if version := fmt.Sprint("version ", n); !slices.Contains(r.versions, version) {
			t.Errorf("no client was answered by %s, only by %v", version, r.versions)
		}
	}
	if r.underWay == 0 {
		t.Error("no slow request was under way at any stop signal: nothing was shown about draining")
	}
}
