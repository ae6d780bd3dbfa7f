package faults

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// floodFaults are too much of something.
func floodFaults() []*fault {
	return []*fault{
		{
			name:   "two senders flood the notify socket",
			setup:  flooding,
			inject: func(c *cell) { c.open("flood") },
			undo:   func(c *cell) { c.must(os.Remove(c.gate("flood"))) },
			at: [moments]expectation{
				beforeStart: rare(starts, "messages are handled one at a time, and the loop's turn comes"),
				starting:    rare(swaps, "messages are handled one at a time, and the loop's turn comes"),
				settling:    rare(swaps, "messages are handled one at a time, and the loop's turn comes"),
				ready:       often(swaps, "messages are handled one at a time, and the loop's turn comes"),
				draining:    rare(servesOn, "the flood ends with its senders"),
				stopping:    often(endsWith(0), "the flood ends with its senders"),
			},
		},
		{
			name:   "notifications carry sockets that linger for an hour",
			inject: (*cell).sendLingering,
			at: [moments]expectation{
				beforeStart: none("nothing receives yet"),
				starting:    often(swaps, "messages take effect immediately; the sockets are closed in the background"),
				settling:    rare(swaps, "messages take effect immediately; the sockets are closed in the background"),
				ready:       rare(swaps, "messages take effect immediately; the sockets are closed in the background"),
				draining:    rare(servesOn, "a generation's end does not wait for them"),
				stopping:    often(endsWith(0), "a generation's end does not wait for them"),
			},
		},
		{
			name:        "the control socket is flooded (1,000 connections: half requests, endless bodies, answers nobody reads)",
			inject:      (*cell).floodControl,
			unreachable: true,
			at: [moments]expectation{
				beforeStart: none("nobody listens yet"),
				starting:    rare(swaps, "64 connections are served at a time; HUP is not held up"),
				settling:    rare(swaps, "64 connections are served at a time; HUP is not held up"),
				ready:       often(swaps, "64 connections are served at a time; HUP is not held up"),
				draining:    rare(servesOn, "64 connections are served at a time; HUP is not held up"),
				stopping:    often(endsWith(0), "their connections are cut"),
			},
		},
		{
			name:   "100 clients scrape metrics at once",
			inject: (*cell).scrape,
			at: [moments]expectation{
				beforeStart: none("nobody listens yet"),
				starting:    rare(swaps, "4 are answered at a time, the others get 503"),
				settling:    rare(swaps, "4 are answered at a time, the others get 503"),
				ready:       often(swaps, "4 are answered at a time, the others get 503"),
				draining:    rare(servesOn, "4 are answered at a time, the others get 503"),
				stopping:    rare(endsWith(0), "they are cut"),
			},
		},
		{
			name:    "100 clients scrape metrics while fork fails",
			missing: withoutProgram("prlimit"),
			setup:   (*cell).anotherUser,
			inject:  func(c *cell) { c.limitForks(); c.scrape() },
			at: [moments]expectation{
				beforeStart: none("nobody listens yet"),
				starting:    rare(swaps, "crank has the threads that it needs"),
				settling:    rare(swaps, "crank has the threads that it needs"),
				ready:       often(servesOn, "the candidate cannot be forked; crank has the threads that it needs"),
				draining:    rare(servesOn, "crank has the threads that it needs"),
				stopping:    rare(endsWith(0), "crank has the threads that it needs"),
			},
		},
		{
			name:   "a storm of 1,000 HUPs",
			inject: func(c *cell) { c.burst(syscall.SIGHUP, 1000) },
			asks:   true,
			at: [moments]expectation{
				beforeStart: none("before crank has a handler a HUP ends it as it does any program (not as PID 1)"),
				starting:    rare(swaps, "the candidate becomes current, then one more swap begins"),
				settling:    rare(swaps, "the candidate becomes current, then one more swap begins"),
				ready:       often(swaps, "one swap at a time, and one more at the end"),
				draining:    rare(servesOn, "one swap at a time, and one more at the end"),
				stopping:    often(endsWith(0), "they are dropped"),
			},
		},
		{
			name:   "TERM",
			inject: func(c *cell) { c.signal(syscall.SIGTERM) },
			late:   true,
			at: [moments]expectation{
				beforeStart: rare(ends, "before crank has a handler it ends as any program (not as PID 1), else with the app's code"),
				starting:    often(endsWith(0), "the candidate has a second, the current one drains"),
				settling:    often(endsWith(0), "both drain"),
				ready:       often(endsWith(0), "the current one drains"),
				draining:    rare(endsWith(0), "both drain"),
				stopping:    rare(endsWith(0), "it is passed on"),
			},
		},
	}
}

// flooding has the apps flood on order.
func flooding(c *cell) {
	order := []string{"-order", "flood", "-order-when", c.gate("flood")}
	c.app = append(c.app, order...)
	c.candidate = append(c.candidate, order...)
}

func (c *cell) burst(s syscall.Signal, n int) {
	c.Helper()
	for range n {
		c.signal(s)
	}
}

// connections of each kind are opened by floodControl: a thousand in all.
const connections = 333

// floodControl opens connections that begin requests, and keeps them busy until undo.
func (c *cell) floodControl() {
	c.Helper()
	const get = "GET /v1/events?follow=true HTTP/1.1\r\nHost: crank\r\n"
	const post = "POST /v1/run HTTP/1.1\r\nHost: crank\r\nTransfer-Encoding: chunked\r\n\r\n"
	var held []net.Conn
	for range connections {
		for _, text := range []string{get, get + "\r\n", post} {
			// The queue may be full: then nobody else gets in either.
			conn, err := net.DialTimeout("unix", filepath.Join(c.prefix, "app.ctl"), time.Second)
			if err != nil {
				continue
			}
			held = append(held, conn)
			io.WriteString(conn, text)
		}
	}
	done := make(chan struct{})
	var writers sync.WaitGroup
	for _, conn := range held {
		writers.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(100 * time.Millisecond):
				}
				conn.SetWriteDeadline(time.Now().Add(time.Second))
				if _, err := io.WriteString(conn, "1\r\n \r\n"); err != nil {
					return
				}
			}
		})
	}
	c.onUndo(func() {
		close(done)
		for _, conn := range held {
			conn.Close()
		}
		writers.Wait()
	})
}

// scrapers is the number of clients of scrape.
const scrapers = 100

// scrape has many clients ask for the metrics until undo.
func (c *cell) scrape() {
	done := make(chan struct{})
	var clients sync.WaitGroup
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range scrapers {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				response, err := client.Get("http://" + c.http + "/metrics")
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				c.answered.Add(1)
			}
		})
	}
	c.onUndo(func() { close(done); clients.Wait() })
}

func itoa(n uintptr) string { return fmt.Sprint(n) }
