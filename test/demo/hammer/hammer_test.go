package hammer

import (
	"fmt"
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
	}{
		{"closed without an answer", abort, "EOF"},
		{"cut short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "half")
			http.NewResponseController(w).Flush()
			abort(w, r)
		}, "unexpected EOF"},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "503"},
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
	if _, err := c.request(Load{Network: "tcp", Address: address, Timeout: patience}, true); err == nil {
		t.Error("there is an answer")
	}
}
