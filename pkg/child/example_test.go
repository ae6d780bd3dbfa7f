//go:build unix

package child_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/crankctl/crank/pkg/child"
)

// A whole app: under crank it takes over the socket, elsewhere it binds one itself.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	ln, err := child.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	})}
	// Whatever takes long, such as filling caches, belongs here: the old generation still serves.
	if err := child.Ready(); err != nil {
		log.Print(err)
	}
	if err := child.Serve(ctx, srv, ln); err != nil {
		log.Fatal(err)
	}
}

// An app with two sockets: crank -bind web=:8080 -bind admin=127.0.0.1:9090 -- app
func ExampleListener() {
	web, err := child.Listener("web")
	if err != nil {
		child.Failed(err.Error()) // ends the swap at once, with the reason
		log.Fatal(err)
	}
	admin, err := child.Listener("admin")
	if err != nil {
		child.Failed(err.Error())
		log.Fatal(err)
	}
	fmt.Println(web.Addr(), admin.Addr())
}
