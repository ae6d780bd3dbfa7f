package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crankctl/crank/pkg/child"
)

// version is set by the linker (-X main.version=v2), so that two builds of the app answer differently.
var version string

// server serves on what the app was given.
type server struct {
	options
	listeners []net.Listener
	packets   []net.PacketConn
	accepted  count
	once      sync.Once
	result    chan error // nil until started
}

func (o options) server() (*server, error) {
	s := &server{options: o}
	if o.serve == "none" {
		return s, nil
	}
	var err, err2 error
	s.listeners, err = child.Listeners()
	s.packets, err2 = child.PacketConns()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if len(s.listeners)+len(s.packets) == 0 && o.listen != "" {
		ln, err := net.Listen("tcp", o.listen)
		if err != nil {
			return nil, err
		}
		s.listeners = append(s.listeners, ln)
	}
	if len(s.listeners)+len(s.packets) == 0 {
		return nil, errors.New("nothing to serve on: run it under crank with -bind, or give -listen or -serve none")
	}
	for i, ln := range s.listeners {
		fmt.Println("serving", ln.Addr())
		s.listeners[i] = counted{ln, &s.accepted}
	}
	return s, nil
}

// count is the number of connections that were accepted. Whoever accepts holds the lock for reading
// all the time: with the listeners closed, whoever has it for writing finds every one counted.
type count struct {
	mu sync.RWMutex
	n  atomic.Int64
}

// counted counts in count.
type counted struct {
	net.Listener
	count *count
}

func (c counted) Accept() (net.Conn, error) {
	c.count.mu.RLock()
	defer c.count.mu.RUnlock()
	conn, err := c.Listener.Accept()
	if err == nil {
		c.count.n.Add(1)
	}
	return conn, err
}

// acceptNoMore closes the listeners and returns how many connections were ever accepted.
func (s *server) acceptNoMore() int64 {
	for _, ln := range s.listeners {
		ln.Close()
	}
	s.accepted.mu.Lock()
	defer s.accepted.mu.Unlock()
	return s.accepted.n.Load()
}

// start serves until ctx ends, and drains then. It may be called twice.
func (s *server) start(ctx context.Context) {
	s.once.Do(func() {
		for _, conn := range s.packets {
			go echoPackets(conn)
		}
		if len(s.listeners) == 0 {
			return
		}
		s.result = make(chan error, 1)
		serve := s.serveHTTP
		if s.serve == "echo" {
			serve = s.serveEcho
		}
		go func() { s.result <- serve(ctx) }()
	})
}

func (s *server) wait() error {
	if s.result == nil {
		return nil
	}
	return <-s.result
}

func (s *server) serveHTTP(ctx context.Context) error {
	body := s.body
	if body == "" {
		body = fmt.Sprintf("generation %s pid %d\n", os.Getenv("CRANK_GENERATION"), os.Getpid())
	}
	if version != "" {
		body = "version " + version + " " + body
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if delay, err := time.ParseDuration(r.FormValue("delay")); err == nil { // /?delay=3s
			fmt.Println("delaying", delay)
			time.Sleep(delay)
		}
		io.WriteString(w, body)
	})}
	return child.Server{Timeout: s.drain, Quiet: true}.Serve(ctx, srv, s.listeners...)
}

// serveEcho sends everything back. After ctx it accepts no more, and waits for the clients to hang up.
func (s *server) serveEcho(ctx context.Context) error {
	var accepting, conns sync.WaitGroup
	for _, ln := range s.listeners {
		accepting.Go(func() {
			for {
				conn, err := ln.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil { // another generation shut it down: retry until crank has restored it
					time.Sleep(5 * time.Millisecond)
					continue
				}
				conns.Go(func() {
					defer conn.Close()
					io.Copy(conn, conn)
				})
			}
		})
	}
	<-ctx.Done()
	for _, ln := range s.listeners {
		ln.Close()
	}
	gone := make(chan struct{})
	go func() {
		accepting.Wait()
		conns.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-time.After(s.drain):
		return fmt.Errorf("clients did not hang up in %v", s.drain)
	}
}

// echoPackets ends with the process: a datagram that waits is the next generation's.
func echoPackets(conn net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		conn.WriteTo(buf[:n], from)
	}
}
