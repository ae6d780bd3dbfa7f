// Package websocket is as much of RFC 6455 as the tests need: short messages in one frame each, no extensions.
package websocket

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// The kinds of frames that there are here (RFC 6455, 5.2).
const (
	Text  = 0x1
	Close = 0x8
)

// GoingAway is the status of a Close frame of an endpoint that goes away (RFC 6455, 7.4.1).
const GoingAway = 1001

// Conn is a connection that has shaken hands. One goroutine may read while others write.
type Conn struct {
	conn   net.Conn
	in     *bufio.Reader
	client bool // masks what it sends

	writing sync.Mutex
	closed  bool // a Close frame was sent
}

// ErrClosing is the error of a Write after a Close frame: nothing may follow that (RFC 6455, 5.5.1).
var ErrClosing = errors.New("a Close frame was sent")

// Upgrade answers the handshake of a client and takes its connection over.
func Upgrade(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if r.Header.Get("Upgrade") != "websocket" || key == "" {
		http.Error(w, "this is for WebSockets", http.StatusBadRequest)
		return nil, errors.New("not a handshake")
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(key))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Conn{conn: conn, in: buffered.Reader}, nil
}

// Dial connects, and gives up after timeout, which is also the limit of each later Read.
func Dial(network, address, path string, timeout time.Duration) (*Conn, error) {
	conn, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return nil, err
	}
	c := &Conn{conn: conn, in: bufio.NewReader(conn), client: true}
	if err := c.handshake(path, timeout); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) handshake(path string, timeout time.Duration) error {
	c.SetDeadline(time.Now().Add(timeout))
	key := rand.Text()
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: app\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", path, key)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != accept(key) {
		return fmt.Errorf("the handshake is answered %s", resp.Status)
	}
	return nil
}

func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// SetDeadline is for Read and Write.
func (c *Conn) SetDeadline(t time.Time) { c.conn.SetDeadline(t) }

// Close ends the connection without a Close frame.
func (c *Conn) Close() error { return c.conn.Close() }

// Write sends a frame of less than 126 bytes.
func (c *Conn) Write(kind byte, payload []byte) error {
	frame := []byte{0x80 | kind, byte(len(payload))}
	if c.client {
		frame[1] |= 0x80
		frame = append(frame, 0, 0, 0, 0) // a mask that changes nothing
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed {
		return ErrClosing
	}
	c.closed = kind == Close
	_, err := c.conn.Write(append(frame, payload...))
	return err
}

// WriteClose says goodbye.
func (c *Conn) WriteClose(status uint16) error {
	return c.Write(Close, binary.BigEndian.AppendUint16(nil, status))
}

// Read returns the next frame. io.EOF is an end without a Close frame.
func (c *Conn) Read() (kind byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.in, head); err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(c.in, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(c.in, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, nil
}
