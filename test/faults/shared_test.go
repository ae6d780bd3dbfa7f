package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/crankctl/crank/test/ports"
)

// The descriptors of the sockets in the app of these cells.
const tcp, unixStream, udp = 3, 4, 5

// sharedFaults are what a generation does to the sockets that all generations share.
func sharedFaults() []*fault {
	const restored, swapped = "it is restored, and the candidate becomes current", "it is restored; the swap succeeds"
	all := []*fault{
		damaging("the app sets the backlog to 1 (listen)", "listen", tcp, (*cell).roomy),
		damaging("the app shuts down a TCP socket", "shutdown", tcp, func(c *cell) error {
			_, err := c.get()
			return err
		}),
		damaging("the app removes the path of a unix socket", "unlink", unixStream, func(c *cell) error { return dial("unix", c.unixPath()) }),
		damaging("the app connects a UDP socket", "connect", udp, (*cell).echo),
	}
	for _, f := range all {
		f.at = [moments]expectation{
			beforeStart: rare(starts, "it is restored"),
			starting:    often(swaps, restored),
			settling:    rare(swaps, restored),
			ready:       often(swaps, swapped),
			draining:    rare(servesOn, "it is restored"),
			stopping:    rare(endsWith(0), "sockets are no longer restored"),
		}
	}
	return append(all, changing(), dead())
}

// damaging is a generation that breaks an invariant; well returns nil once it holds again.
func damaging(name, what string, fd int, well func(*cell) error) *fault {
	return &fault{
		name:  name,
		setup: func(c *cell) { c.damaging(what, fd) },
		inject: func(c *cell) {
			if c.give(); c.moment != beforeStart && c.moment != stopping {
				c.logged("shared socket restored")
			}
		},
		check: func(c *cell, got outcome) {
			if !got.end() {
				c.logged("shared socket restored")
				c.find()
				c.eventually("it works", func() error { return well(c) })
			}
		},
	}
}

// changing is a candidate that changes what belongs to the app, and fails.
func changing() *fault {
	return &fault{
		name: "a candidate changes a flag and exits 3",
		setup: func(c *cell) {
			c.damaging("flags", tcp)
			c.candidate = append(c.candidate, "-damage", fmt.Sprint("flags@", tcp), "-exit", "3", "-exit-after", "50ms", "-never-ready")
		},
		check: func(c *cell, got outcome) {
			c.logged("its flags were changed")
			c.answers()
		},
		at: [moments]expectation{
			beforeStart: none("there is no generation to protect"),
			starting:    none("the candidate has already done it"),
			settling:    none("the candidate has already done it"),
			ready:       often(servesOn, "the flag is put back when the candidate fails"),
			draining:    none("a flag that the app itself changed stays as it is"),
			stopping:    none("a flag that the app itself changed stays as it is"),
		},
	}
}

// dead is damage that cannot be undone.
func dead() *fault {
	const words = "crank is not ready and says why; the swap succeeds"
	return &fault{
		name:  "the app shuts down a unix socket",
		setup: func(c *cell) { c.damaging("shutdown", unixStream) },
		inject: func(c *cell) {
			if c.give(); c.moment != beforeStart && c.moment != stopping {
				c.logged("shared socket damaged; not ready")
			}
		},
		check: func(c *cell, got outcome) {
			if !got.end() {
				c.logged("shared socket damaged; not ready")
			}
		},
		broken: true,
		at: [moments]expectation{
			beforeStart: rare(starts, "crank is not ready and says why"),
			starting:    often(swaps, words),
			settling:    rare(swaps, words),
			ready:       often(swaps, words),
			draining:    rare(servesOn, "crank is not ready and says why"),
			stopping:    rare(endsWith(0), "sockets are no longer checked"),
		},
	}
}

func (c *cell) unixPath() string { return filepath.Join(c.dir, "s") }

// damaging gives the cell a socket of each kind, and damages one of them.
func (c *cell) damaging(what string, fd int) {
	c.flags = append(c.flags, "-bind", "unix://"+c.unixPath(), "-bind", "udp=udp4://127.0.0.1:"+ports.Unused())
	if what == "flags" {
		return
	}
	ordering(c, "damage")
	to := &c.app
	if c.moment == starting || c.moment == settling {
		to = &c.candidate
	}
	*to = append(*to, "-damage", fmt.Sprint(what, "@", fd), "-damage-at", "order")
}

// logged waits until crank has logged text.
func (c *cell) logged(text string) {
	c.Helper()
	c.eventually("crank logs "+text, func() error {
		log, err := os.ReadFile(filepath.Join(c.dir, "log"))
		if err == nil && !strings.Contains(string(log), text) {
			err = errors.New("not logged")
		}
		return err
	})
}

// roomy returns nil if the queue of the TCP socket has room again.
func (c *cell) roomy() error {
	response, err := http.Get("http://" + c.http + "/metrics")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err == nil && regexp.MustCompile(`listener_queue_limit_connections{.*} [01]\n`).Match(page) {
		err = errors.New("its backlog is 1")
	}
	return err
}

func dial(network, address string) error {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// echo is a client of the UDP socket.
func (c *cell) echo() error {
	_, address, _ := strings.Cut(c.info().Sockets[udp-3].Bound, "://")
	conn, err := net.DialTimeout("udp4", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 8))
	return err
}
