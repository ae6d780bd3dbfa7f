package hammer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// An open loop waits for no answer: as many requests as the test likes are under way at once, of both kinds.
func TestOpenLoopDoesNotWait(t *testing.T) {
	const enough = 20
	var served atomic.Int64
	release := make(chan struct{})
	reached := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/path?query" {
			w.WriteHeader(http.StatusNotFound)
		}
		if served.Add(1) == enough {
			close(reached)
		}
		<-release
		fmt.Fprint(w, "good")
	}))
	defer srv.Close()
	run := Start(Load{Network: "tcp", Address: srv.Listener.Addr().String(), Path: "/path?query", Rate: 500, KeepAlive: 1, Short: 1, Timeout: patience})
	select {
	case <-reached:
	case <-time.After(patience):
		t.Error("the loop waits")
	}
	if report := run.Report(); report.Requests != 0 {
		t.Errorf("%d requests have an answer", report.Requests)
	}
	close(release)
	report := run.Stop()
	if report.Requests < enough || report.Requests != int(served.Load()) || report.Lost != 0 || report.Bodies["good"] != report.Requests {
		t.Errorf("the server had %d requests, the report is %+v", served.Load(), report)
	}
}

// What a request is late by is part of its latency.
func TestLateRequestsCount(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	r := &Run{load: Load{Network: "tcp", Address: srv.Listener.Addr().String(), Timeout: patience}, report: Report{Kinds: map[Kind]int{}, Bodies: map[string]int{}}}
	const late = time.Hour
	r.scheduled(time.Now().Add(-late), false, &pool{})
	if report := r.Report(); report.Longest < late || report.P50 < late || report.Lost != 0 {
		t.Errorf("report %+v", report)
	}
}

// A kept connection is used again, one that the server has closed in the meantime is not, and one that it
// closes instead of an answer is a loss.
func TestPool(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conns := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	answer := func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
	r := &Run{load: Load{Network: "tcp", Address: ln.Addr().String(), Timeout: patience}, report: Report{Kinds: map[Kind]int{}, Bodies: map[string]int{}}}
	var idle pool
	defer idle.close()
	ask := func() (done chan struct{}) {
		done = make(chan struct{})
		go func() {
			defer close(done)
			r.scheduled(time.Now(), true, &idle)
		}()
		return done
	}
	want := func(what string, requests, connections, lost int) {
		t.Helper()
		if report := r.Report(); report.Requests != requests || report.Connections != connections || report.Lost != lost || report.LostKept != lost {
			t.Errorf("%s: %+v", what, report)
		}
	}

	done := ask()
	first := <-conns
	answer(first)
	<-done
	want("the first", 1, 1, 0)
	done = ask()
	answer(first)
	<-done
	want("used again", 2, 1, 0)

	first.Close()
	for deadline := time.Now().Add(patience); idle.idle[0].open(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the end of the connection is not seen")
		}
	}
	done = ask()
	second := <-conns
	answer(second)
	<-done
	want("closed while idle", 3, 2, 0)

	done = ask()
	http.ReadRequest(bufio.NewReader(second))
	second.Close()
	<-done
	want("closed instead of an answer", 4, 2, 1)
}
