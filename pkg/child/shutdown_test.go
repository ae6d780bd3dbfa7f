//go:build linux

package child

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestServeOutlivesShutdown: a failing candidate may call shutdown(2) on the shared socket; crank restores it, and the current
// generation accepts as before.
func TestServeOutlivesShutdown(t *testing.T) {
	for name, serve := range map[string]func(ctx context.Context, ln net.Listener) error{
		"HTTP": func(ctx context.Context, ln net.Listener) error {
			return Server{Quiet: true}.Serve(ctx, &http.Server{}, ln)
		},
		"TCP": func(ctx context.Context, ln net.Listener) error {
			return Server{Quiet: true}.ServeTCP(ctx, func(_ context.Context, conn net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil { // net/http rejects an answer that precedes its request
					_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				}
			}, ln)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, ln) }()
			get := func() error {
				client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
				r, err := client.Get("http://" + ln.Addr().String())
				if err == nil {
					err = r.Body.Close()
				}
				return err
			}
			if err := get(); err != nil {
				t.Fatal(err)
			}
			raw, err := ln.(*net.TCPListener).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			name := &syscall.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
			for _, act := range []func(fd int) error{
				func(fd int) error { return syscall.Shutdown(fd, syscall.SHUT_RD) },
				func(fd int) error { return syscall.Bind(fd, name) }, // shutdown gave up its port, since the kernel had chosen it
				func(fd int) error { return syscall.Listen(fd, 10) },
			} {
				select {
				case err := <-ended:
					t.Fatalf("the server ended: %v", err)
				case <-time.After(2 * acceptPause): // long enough for accept to fail and be retried
				}
				if err := raw.Control(func(fd uintptr) { err = act(int(fd)) }); err != nil {
					t.Fatal(err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := get(); err != nil {
				t.Error(err)
			}
			stop()
			if err := <-ended; err != nil {
				t.Errorf("the server returned %v", err)
			}
		})
	}
}
