package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"
)

// greetTimeout bounds crank's first response on a new connection. crank accepts a
// connection within milliseconds unless it is suspended, or others hold all its connections.
const greetTimeout = 30 * time.Second

// Dial connects, and checks that the process that answers may receive requests: on a unix socket one
// of this process's user or of root. No part of a request has been sent by then. It blocks
// until crank has answered, for at most 30 seconds. The caller closes the connection.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	conn, _, err := c.dial(ctx)
	return conn, err
}

// Server returns the user id of the process that answers on the socket. If none does before ctx
// ends, the error is ctx's, and uid that of the process that listens, or -1 if that is unknown too.
func (c *Client) Server(ctx context.Context) (uid int, err error) {
	conn, uid, err := c.dial(ctx)
	if err != nil {
		return uid, err
	}
	return uid, conn.Close()
}

func (c *Client) dial(ctx context.Context) (conn net.Conn, uid int, err error) {
	conn, uid, err = c.connect(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, uid, ctx.Err()
	case err != nil:
		return nil, uid, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return conn, uid, nil
}

func (c *Client) connect(ctx context.Context) (checked net.Conn, uid int, err error) {
	if c.network == "unix" {
		file, err := os.Stat(c.address)
		if err != nil {
			return nil, -1, err
		}
		if file.Mode().Type() != fs.ModeSocket {
			return nil, -1, fmt.Errorf("%s is not a socket", c.address)
		}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, -1, err
	}
	if checked, uid, err = identify(ctx, conn, c.address); err != nil {
		return nil, uid, errors.Join(err, conn.Close())
	}
	return checked, uid, nil
}

// greet sends one request that carries nothing and asks for nothing, so that the peer is
// known before anything else is sent. net/http answers it without the handler, in every version of crank.
func greet(ctx context.Context, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // the read reports the error
	err := exchangeGreeting(conn)
	if !stop() {
		return ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("timed out after %v: no response: is crank suspended or overloaded?", greetTimeout)
	}
	return errors.Join(err, conn.SetDeadline(time.Time{}))
}

func exchangeGreeting(conn net.Conn) error {
	if _, err := io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: crank\r\n\r\n"); err != nil {
		return err
	}
	reader := bufio.NewReader(io.LimitReader(conn, maxReadyAnswer))
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodOptions})
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer response.Body.Close()
	if response.Close {
		return fmt.Errorf("unexpected answer %q: is this crank's control socket?", response.Status)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if reader.Buffered() > 0 {
		return errors.New("unexpected data after the response: is this crank's control socket?")
	}
	return nil
}
