package sockets

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gatedPair returns both ends of a connection; the first one is behind the gate.
func gatedPair(t *testing.T, network, address string) (gated, other net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if other, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if gated, err = gate(accepted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gated.Close(); other.Close() })
	return gated, other
}

// onGated runs a test for each kind of connection.
func onGated(t *testing.T, test func(t *testing.T, gated, other net.Conn)) {
	t.Run("tcp", func(t *testing.T) {
		gated, other := gatedPair(t, "tcp", "127.0.0.1:0")
		test(t, gated, other)
	})
	t.Run("unix", func(t *testing.T) {
		gated, other := gatedPair(t, "unix", filepath.Join(t.TempDir(), "s"))
		test(t, gated, other)
	})
}

// TestGatePasses: what is written on one side is read on the other, more of it than the kernel holds, then the end.
func TestGatePasses(t *testing.T) {
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	onGated(t, func(t *testing.T, gated, other net.Conn) {
		for _, way := range []struct{ from, to net.Conn }{{gated, other}, {other, gated}} {
			done := make(chan error, 1)
			go func() {
				n, err := way.from.Write(sent)
				if err == nil && n != len(sent) {
					err = io.ErrShortWrite
				}
				done <- err
			}()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("what was read is not what was written (%v)", err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n, err := gated.Read(nil); n != 0 || err != nil {
			t.Errorf("of nothing: %d, %v", n, err)
		}
		other.Close()
		if n, err := gated.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
	})
}

// TestGateErrors: they are those of other connections.
func TestGateErrors(t *testing.T) {
	onGated(t, func(t *testing.T, gated, other net.Conn) {
		gated.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := gated.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("too late to read: %v", err)
		}
		more := make([]byte, 64<<20) // than the kernel holds
		gated.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := gated.Write(more); n == len(more) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("too late to write on: %d, %v", n, err)
		}
		gated.SetDeadline(time.Time{})
		other.Close() // with what it has not read: a reset
		var op *net.OpError
		for err = nil; err == nil; {
			_, err = gated.Write([]byte("x"))
		}
		if !errors.As(err, &op) || op.Op != "write" || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("to nobody: %v", err)
		}
		gated.Close()
		if _, err := gated.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("when it is closed: %v", err)
		}
		if _, err := gated.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("when it is closed: %v", err)
		}
	})
	client, server := net.Pipe()
	defer server.Close()
	defer client.Close()
	if _, err := gate(client); err == nil {
		t.Error("a pipe without a descriptor is let in")
	}
}

// TestGateHoldsNobodyUp: who waits to read keeps nobody from closing, nor from using another connection.
func TestGateHoldsNobodyUp(t *testing.T) {
	var waiting sync.WaitGroup
	var all []net.Conn
	for range 20 {
		gated, _ := gatedPair(t, "tcp", "127.0.0.1:0")
		all = append(all, gated)
		waiting.Go(func() {
			if _, err := gated.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("it was closed: %v", err)
			}
		})
	}
	gated, other := gatedPair(t, "tcp", "127.0.0.1:0")
	if _, err := gated.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := other.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for _, c := range all {
		waiting.Go(func() { c.Close() })
	}
	waiting.Wait()
}
