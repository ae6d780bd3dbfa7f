package launch

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/crankctl/crank/pkg/linux"
	"github.com/crankctl/crank/pkg/sockets"
)

// TestRivalOfAnother: a socket of another process is a warning only if nobody accepts on crank's, and only once for each generation.
// test/shared has those of the app.
func TestRivalOfAnother(t *testing.T) {
	var log []string
	b := newBench(t, func(c *Config) {
		c.Log = funcr.New(func(_, args string) { log = append(log, args) }, funcr.Options{})
	}, "tcp4://127.0.0.1:0?reuseport")
	own := b.sockets.Sockets()[0]
	address, err := sockets.ParseAddress(own.Bound() + "?reuseport")
	if err != nil {
		t.Fatal(err)
	}
	other, err := sockets.Bind([]sockets.Address{address}, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	stuck := map[*sockets.Socket]int{own: 7}
	for _, test := range []struct {
		generation int
		stuck      map[*sockets.Socket]int
		warnings   int
	}{{1, nil, 0}, {1, stuck, 1}, {1, stuck, 1}, {2, nil, 1}, {2, stuck, 2}} {
		b.rivals.look(test.generation, test.stuck)
		if len(log) != test.warnings {
			t.Fatalf("%+v: got %q", test, log)
		}
	}
	for _, want := range []string{"clients not accepted; another socket is listening", `"waiting"=7`, fmt.Sprintf(`"pid"=%d`, os.Getpid()), "use descriptor 3"} {
		if !strings.Contains(log[0], want) {
			t.Errorf("got %s, want %s", log[0], want)
		}
	}
}

// TestNobodyAccepts: a queue that is empty or becomes shorter is being served.
func TestNobodyAccepts(t *testing.T) {
	b := newBench(t, nil, "tcp4://127.0.0.1:0?reuseport", "tcp4://127.0.0.1:0")
	own := b.sockets.Sockets()[0]
	fd, err := linux.DuplicateFrom(own.FD(), 3)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	ln, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	start := time.Now()
	observe := func(seconds, want int) {
		t.Helper()
		if _, stuck := b.rivals.observe(start.Add(time.Duration(seconds) * time.Second)); stuck[own] != want || len(stuck) > 1 {
			t.Errorf("after %d s: got %v, want %d", seconds, stuck, want)
		}
	}
	connect := func() {
		conn, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	observe(0, 0)
	observe(60, 0)
	connect()
	connect()
	observe(61, 0) // since now
	observe(63, 0)
	observe(64, 2)
	observe(65, 0) // again only after three more
	connect()
	observe(67, 3)
	if _, err := ln.Accept(); err != nil {
		t.Fatal(err)
	}
	observe(70, 0)
	observe(72, 0)
	observe(73, 2)
}
