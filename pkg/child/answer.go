//go:build unix

package child

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// answer is the ResponseWriter of HTTP/1.1. An answer that begins while the server drains says that the connection ends with it, also
// where its handler was called before, or says something else.
type answer struct {
	http.ResponseWriter
	conns *conns
	begun bool
}

// begin is called before the header is sent.
func (a *answer) begin() {
	if !a.begun && a.conns.draining.Load() {
		a.Header().Set("Connection", "close")
	}
	a.begun = true
}

func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK { // before it there may be others; after 101 there is no HTTP any more
		a.begin()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(p)
}

func (a *answer) WriteString(s string) (int, error) {
	a.begin()
	return io.WriteString(a.ResponseWriter, s)
}

// ReadFrom is for sendfile(2).
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	a.begin()
	return io.Copy(a.ResponseWriter, r)
}

func (a *answer) Flush() { _ = a.FlushError() }

// FlushError is for [http.ResponseController].
func (a *answer) FlushError() error {
	a.begin()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap is for [http.ResponseController] too.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(a.ResponseWriter).Hijack()
}
