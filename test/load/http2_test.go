package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// newHTTP2 returns net/http's client, whose requests share a connection. To it the connections are plain ones, so that watched
// can look at what comes.
func (c *crowd) newHTTP2() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	dial := secured("h2")
	return &http.Client{Timeout: tooLate, Transport: &http.Transport{
		Protocols: protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, err := dial(c.at)
			if err != nil {
				return nil, err
			}
			conn.SetDeadline(time.Time{})
			return &watched{Conn: conn, crowd: c}, nil
		},
	}}
}

// http2 is one request. net/http would send it again where the app has refused it or the connection has ended; that is seen by
// the headers being sent twice, and a failure: an app that says GOAWAY in two steps answers all that it is sent.
func http2(ctx context.Context, c *client) error {
	var headers atomic.Int32
	trace := &httptrace.ClientTrace{WroteHeaders: func() { headers.Add(1) }}
	// Not ctx itself: what was begun is to be answered.
	traced := httptrace.WithClientTrace(context.WithoutCancel(ctx), trace)
	req, err := http.NewRequestWithContext(traced, http.MethodPost, "http://app/", strings.NewReader("a body"))
	if err != nil {
		return err
	}
	sent := time.Now()
	resp, err := c.http2.Do(req)
	if err != nil {
		return err
	}
	if err := whole(resp); err != nil {
		return err
	}
	if n := headers.Load(); n != 1 {
		return fmt.Errorf("a request had to be sent %d times", n)
	}
	c.answered(1, sent)
	return nil
}

// watched is the client's end of a connection. It follows the frames that come in: a connection that the app ends
// without GOAWAY before has failed. One counts when an answer comes on it: where several requests want a new connection
// each of them makes one, and all go over the first.
type watched struct {
	net.Conn
	crowd *crowd

	left    atomic.Bool // the client has closed it
	once    sync.Once
	frame   []byte // the begin of a frame's header
	payload int    // bytes that are left of the frame
	used    bool
	goaway  bool
}

const (
	frameHeader  = 9    // bytes (RFC 9113, 4.1)
	frameHeaders = 0x01 // RFC 9113, 6.2
	frameGoAway  = 0x07 // RFC 9113, 6.8
)

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.follow(p[:n])
	if err != nil && !w.goaway && !w.left.Load() {
		w.once.Do(func() { w.crowd.failed(errors.Join(errors.New("an HTTP/2 connection has ended without GOAWAY"), err)) })
	}
	return n, err
}

func (w *watched) Close() error {
	w.left.Store(true)
	return w.Conn.Close()
}

// follow takes the next bytes, wherever they are in a frame.
func (w *watched) follow(p []byte) {
	for len(p) > 0 {
		if w.payload > 0 {
			n := min(w.payload, len(p))
			w.payload -= n
			p = p[n:]
			continue
		}
		n := min(frameHeader-len(w.frame), len(p))
		w.frame = append(w.frame, p[:n]...)
		p = p[n:]
		if len(w.frame) == frameHeader {
			w.header(w.frame)
			w.frame = w.frame[:0]
		}
	}
}

// header looks at a frame's header. The first GOAWAY of a connection tells its client; a second one may follow.
func (w *watched) header(frame []byte) {
	w.payload = int(binary.BigEndian.Uint32(frame) >> 8)
	answer, goaway := frame[3] == frameHeaders && !w.used, frame[3] == frameGoAway && !w.goaway
	w.used, w.goaway = w.used || answer, w.goaway || goaway
	if answer {
		w.crowd.connected()
	}
	if (answer || goaway) && w.used && w.goaway {
		w.crowd.told()
	}
}
