//go:build linux

package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadyAsksAURL(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // a probe goes straight
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/created", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	host := strings.TrimPrefix(server.URL, "http://")

	for _, test := range []struct {
		args string
		want output
	}{
		{server.URL + "/ok", output{0, "ready\n", ""}},
		{server.URL + "/created", output{0, "ready\n", ""}},
		{"-q tcp://" + host, output{0, "", ""}},
		{"-o json tcp://" + host, output{0, "{\"ready\":true}\n", ""}},
		{server.URL + "/moved", output{1, "", "302 Found"}},
		{server.URL + "/broken", output{1, "", "500 Internal Server Error"}},
		{"-timeout 0.05 " + server.URL + "/silent", output{1, "", "deadline exceeded"}},
		{"http://" + gone.Addr().String() + "/", output{1, "", "connection refused"}},
		{"tcp://" + gone.Addr().String(), output{1, "", "connection refused"}},
		{"https://" + host, output{2, "", "want http://HOST:PORT/PATH or tcp://HOST:PORT"}},
		{"tcp://127.0.0.1", output{2, "", "want http://HOST:PORT/PATH or tcp://HOST:PORT"}},
		{host, output{2, "", "want http://HOST:PORT/PATH or tcp://HOST:PORT"}},
		{server.URL + " " + server.URL, output{2, "", "want one URL, have 2"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			got := call(nil, append([]string{"ready"}, strings.Fields(test.args)...)...)
			if got.code != test.want.code || got.stdout != test.want.stdout ||
				!strings.Contains(got.stderr, test.want.stderr) || (test.want.stderr == "") != (got.stderr == "") {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
