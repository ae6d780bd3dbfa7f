package hammer

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 30 * time.Second

// Every tenth request is spoilt in one way; the clients must see each of them, and nothing else.
func TestEveryLossIsSeen(t *testing.T) {
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	tests := []struct {
		name  string
		spoil http.HandlerFunc
		err   string
		kind  Kind
	}{
		{"closed without an answer", abort, "EOF", EOF},
		{"cut short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "half")
			http.NewResponseController(w).Flush()
			abort(w, r)
		}, "unexpected EOF", EOF},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "503", Status},
		{"reset", func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		}, "reset", Reset},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var served, spoilt atomic.Int64
			enough := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := served.Add(1)
				if n == 200 {
					close(enough)
				}
				if n%10 == 0 {
					spoilt.Add(1)
					tt.spoil(w, r)
					return
				}
				fmt.Fprint(w, "good")
			}))
			defer srv.Close()
			run := Start(Load{Network: "tcp", Address: srv.Listener.Addr().String(), KeepAlive: 2, Short: 2, Timeout: patience})
			select {
			case <-enough:
			case <-time.After(patience):
				t.Error("the clients stand still")
			}
			report := run.Stop()
			if report.Requests != int(served.Load()) || report.Lost != int(spoilt.Load()) {
				t.Errorf("%d requests, %d lost; the server saw %d and %d", report.Requests, report.Lost, served.Load(), spoilt.Load())
			}
			if report.Bodies["good"] != report.Requests-report.Lost {
				t.Errorf("%d good ones", report.Bodies["good"])
			}
			if report.Kinds[tt.kind] != report.Lost {
				t.Errorf("kinds are %v, want %q alone", report.Kinds, tt.kind)
			}
			if report.P50 == 0 || report.P99 < report.P50 {
				t.Errorf("p50 %v, p99 %v", report.P50, report.P99)
			}
			for _, err := range report.Errors {
				if !strings.Contains(err, tt.err) {
					t.Errorf("error is %q, want %q", err, tt.err)
				}
			}
		})
	}
}

func TestRefusedIsLost(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	address := srv.Listener.Addr().String()
	srv.Close()
	var c connection
	if _, err := c.request(Load{Network: "tcp", Address: address, Timeout: patience}, true); kindOf(err) != Refused {
		t.Errorf("error is %v, want one of the kind %q", err, Refused)
	}
}

// A server that is silent loses a request after Timeout, whether it accepts or not.
func TestTooLateIsLost(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var c connection
	defer c.close()
	if _, err := c.request(Load{Network: "tcp", Address: ln.Addr().String(), Timeout: 20 * time.Millisecond}, true); kindOf(err) != Timeout {
		t.Errorf("error is %v, want one of the kind %q", err, Timeout)
	}
}

func TestQuantile(t *testing.T) {
	var l latencies
	if got := l.quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for ms := range 1000 {
		l.add(time.Duration(ms+1) * time.Millisecond)
	}
	for q, exact := range map[float64]time.Duration{0: time.Millisecond, 0.5: 501 * time.Millisecond, 0.99: 991 * time.Millisecond} {
		if got := l.quantile(q); got < exact || got > exact*65/64 {
			t.Errorf("quantile %v is %v, want %v or at most a 64th more", q, got, exact)
		}
	}
}
