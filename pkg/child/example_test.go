//go:build unix

package child_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/child"
)

// A whole app: under crank it takes over the socket, elsewhere it binds port 8080.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	// Whatever takes long, such as filling caches, belongs here: the old generation still serves.
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	if err := child.Serve(ctx, &http.Server{Addr: ":8080"}); err != nil {
		log.Fatal(err)
	}
}

// HTTPS, with HTTP/1.1 and HTTP/2.
func ExampleTLS() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	certificate, err := tls.LoadX509KeyPair("cert.pem", "key.pem")
	if err != nil {
		log.Fatal(err)
	}
	ln, err := child.Listen("tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	if err := child.Serve(ctx, &http.Server{}, child.TLS(ln, config)); err != nil {
		log.Fatal(err)
	}
}

// An app with two servers: crank -bind web=:8080 -bind admin=127.0.0.1:9090 -- app
//
// It is ready when both accept, so neither of them says it alone.
func ExampleListenNamed() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	web, err := child.ListenNamed("web", "tcp", ":8080")
	if err != nil {
		child.Failed(err.Error()) // ends the swap at once, with the reason
		log.Fatal(err)
	}
	admin, err := child.ListenNamed("admin", "tcp", "127.0.0.1:9090")
	if err != nil {
		child.Failed(err.Error())
		log.Fatal(err)
	}
	ended := make(chan error)
	serve := func(handler http.Handler, ln net.Listener) {
		err := child.Server{Quiet: true}.Serve(ctx, &http.Server{Handler: handler}, ln)
		stop() // where one fails the other one ends as well
		ended <- err
	}
	go serve(http.DefaultServeMux, web)
	go serve(http.NotFoundHandler(), admin)
	child.Ready()
	if err := errors.Join(<-ended, <-ended); err != nil {
		log.Fatal(err)
	}
}

// A chat whose clients stay for hours. At a swap each of them is told to come again, within the five seconds of Spread, and
// finds the next generation.
func ExampleServer_ServeTCP() {
	ctx, drain := context.WithCancel(context.Background()) // signal.NotifyContext in an app
	ln, err := child.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}

	handle := func(leaving context.Context, conn net.Conn) {
		stop := context.AfterFunc(leaving, func() { fmt.Fprintln(conn, "please reconnect") })
		defer stop()
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			fmt.Fprintln(conn, "you said", lines.Text())
		}
	}
	ended := make(chan error)
	go func() {
		ended <- child.Server{Timeout: 20 * time.Second, Spread: 5 * time.Millisecond}.ServeTCP(ctx, handle, ln)
	}()

	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	in := bufio.NewReader(client)
	fmt.Fprintln(client, "hello")
	answer, _ := in.ReadString('\n')
	fmt.Print(answer)
	drain()
	answer, _ = in.ReadString('\n')
	fmt.Print(answer)
	client.Close()
	fmt.Println(<-ended)
	// Output:
	// you said hello
	// please reconnect
	// <nil>
}

// A stream of server-sent events ends when its connection should, and the browser connects again by itself. A WebSocket is told
// likewise, with the Close frame of whatever library it is served by (1001, going away).
func ExampleLeaving() {
	ctx, drain := context.WithCancel(context.Background())
	ln, err := child.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}

	events := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		http.NewResponseController(w).Flush()
		select {
		case <-child.Leaving(r.Context()).Done():
			fmt.Fprint(w, "retry: 100\n\n")
		case <-r.Context().Done(): // the client has gone
		}
	}
	ended := make(chan error)
	go func() {
		ended <- child.Server{Spread: 5 * time.Millisecond}.Serve(ctx, &http.Server{Handler: http.HandlerFunc(events)}, ln)
	}()

	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	drain()
	stream, err := io.ReadAll(resp.Body)
	fmt.Printf("%q %v\n", stream, err)
	http.DefaultClient.CloseIdleConnections()
	fmt.Println(<-ended)
	// Output:
	// "data: hello\n\nretry: 100\n\n" <nil>
	// <nil>
}
