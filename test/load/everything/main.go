// Command everything serves all that the proof's clients speak, each on a socket of its own: HTTP/1.1 and WebSockets on
// "web" and "local", HTTPS with HTTP/1.1 and HTTP/2 on "tls", and UDP.
//
// It is also an example of an app that loses nothing: all that it does for that is child.Serve, child.Leaving for the
// WebSockets, and the end of echo.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/child"
	"github.com/crankctl/crank/test/websocket"
)

// drain is what connections have: more than the clients wait, so that none is cut short where the machine is slow.
const drain = 100 * time.Second

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

var messages = flag.Int("messages", 0, "before READY say STATUS so many `times`")

func run() error {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listeners, err := child.Listeners()
	if err != nil {
		return err
	}
	if err := encrypt(listeners); err != nil {
		return err
	}
	packets, err := child.PacketConns()
	if err != nil {
		return err
	}
	var echoes sync.WaitGroup
	for _, conn := range packets {
		echoes.Go(func() { echo(ctx, conn) })
	}
	for n := range *messages {
		if err := child.Status(fmt.Sprintf("%d of %d", n+1, *messages)); err != nil {
			return err
		}
	}
	http.HandleFunc("/", answer)
	http.HandleFunc("/websocket", talk)
	server := child.Server{Timeout: drain, Spread: time.Second}
	err = server.Serve(ctx, &http.Server{ReadHeaderTimeout: drain}, listeners...)
	echoes.Wait()
	return err
}

// encrypt replaces the socket "tls".
func encrypt(listeners []net.Listener) error {
	secure, err := child.ListenNamed("tls", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config, err := selfSigned()
	if err != nil {
		return err
	}
	for i, ln := range listeners {
		if ln == secure {
			listeners[i] = child.TLS(ln, config)
		}
	}
	return nil
}

var body = fmt.Sprintf("generation %s\n", os.Getenv("CRANK_GENERATION"))

// answer answers, after the time that ?delay= says.
func answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if delay, err := time.ParseDuration(r.FormValue("delay")); err == nil {
		time.Sleep(delay)
	}
	_, _ = io.WriteString(w, body)
}

// talk sends every message back, until its client says Close. When the connection is to leave it says so itself, and
// the client does.
func talk(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Upgrade(w, r)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(child.Leaving(r.Context()), func() { _ = conn.WriteClose(websocket.GoingAway) })
	defer stop()
	for {
		kind, message, err := conn.Read()
		if err != nil || kind == websocket.Close {
			return
		}
		if err := conn.Write(kind, message); err != nil && !errors.Is(err, websocket.ErrClosing) {
			return
		}
	}
}

// echo answers datagrams until ctx ends. One that it has read it answers; those that wait are the next generation's.
func echo(ctx context.Context, conn net.PacketConn) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err == nil {
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}
}

// selfSigned is a certificate that clients of tests need not check.
func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"app"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
