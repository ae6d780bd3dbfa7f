//go:build linux

package child

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// h2client speaks HTTP/2 frame by frame, as a client that does no more than it is told: it repeats nothing, and answers
// no PING before it is told to. Only what the tests need is here: headers are literals without a table (RFC 7541, 6.2.2).
type h2client struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	next   uint32 // the next stream's number

	bodies map[uint32]string // of the streams that have ended
	parts  map[uint32][]byte // of those that have not
	last   []uint32          // of each GOAWAY that came
	resets map[uint32]uint32
	pings  [][]byte // not acknowledged
	acks   bool     // they are, from now on
	pongs  int
	wide   bool // the server may send without end
}

// h2dial connects, with TLS where config is given, and says hello.
func h2dial(t *testing.T, addr net.Addr, config *tls.Config) *h2client {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p := secure.ConnectionState().NegotiatedProtocol; p != "h2" {
			t.Fatalf("the server speaks %q", p)
		}
		conn = secure
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := &h2client{t: t, conn: conn, reader: bufio.NewReader(conn), next: 1,
		bodies: map[uint32]string{}, parts: map[uint32][]byte{}, resets: map[uint32]uint32{}}
	c.write([]byte(preface))
	c.frame(kindSettings, 0, 0, nil)
	return c
}

const (
	kindSettings     = 0x4
	kindWindowUpdate = 0x8
)

func (c *h2client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *h2client) frame(kind, flags byte, stream uint32, payload []byte) {
	c.t.Helper()
	c.write(frameBytes(kind, flags, stream, payload))
}

func frameBytes(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// headers of a request.
func headers(method, path string) (block []byte) {
	for _, field := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "app"}, {":path", path}} {
		block = append(block, 0, byte(len(field[0])))
		block = append(block, field[0]...)
		block = append(block, byte(len(field[1])))
		block = append(block, field[1]...)
	}
	return block
}

// get begins a request and returns its stream.
func (c *h2client) get(path string) (stream uint32) {
	c.t.Helper()
	stream = c.stream()
	c.frame(kindHeaders, flagEndStream|flagEndHeaders, stream, headers("GET", path))
	return stream
}

// post begins a request whose body is to come.
func (c *h2client) post(path string) (stream uint32) {
	c.t.Helper()
	stream = c.stream()
	c.frame(kindHeaders, flagEndHeaders, stream, headers("POST", path))
	return stream
}

func (c *h2client) stream() uint32 {
	c.next += 2
	return c.next - 2
}

// read takes one frame; io.EOF is the end.
func (c *h2client) read() error {
	head := make([]byte, frameHeader)
	if _, err := io.ReadFull(c.reader, head); err != nil {
		return err
	}
	payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c.reader, payload); err != nil {
		return fmt.Errorf("in a frame: %w", err)
	}
	kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
	switch kind {
	case kindData:
		c.parts[stream] = append(c.parts[stream], payload...)
		if len(payload) > 0 && !c.wide {
			c.frame(kindWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(len(payload))))
		}
	case kindSettings:
		if flags&flagAck == 0 {
			c.frame(kindSettings, flagAck, 0, nil)
		}
	case kindPing:
		if flags&flagAck != 0 {
			c.pongs++
			return nil
		}
		if c.acks {
			c.frame(kindPing, flagAck, 0, payload)
			return nil
		}
		c.pings = append(c.pings, payload)
	case kindGoAway:
		if code := binary.BigEndian.Uint32(payload[4:]); code != 0 {
			return fmt.Errorf("GOAWAY with error %d: %q", code, payload[8:])
		}
		c.last = append(c.last, binary.BigEndian.Uint32(payload))
	case kindReset:
		c.resets[stream] = binary.BigEndian.Uint32(payload)
	}
	if (kind == kindData || kind == kindHeaders) && flags&flagEndStream != 0 {
		c.bodies[stream] = string(c.parts[stream])
		delete(c.parts, stream)
	}
	return nil
}

// until reads until done, which must come before the end of the connection.
func (c *h2client) until(what string, done func() bool) {
	c.t.Helper()
	for !done() {
		if err := c.read(); err != nil {
			c.t.Fatalf("waiting for %s: %v (GOAWAY %v, answers %v, resets %v)", what, err, c.last, len(c.bodies), c.resets)
		}
	}
}

// answer waits for the whole answer on a stream.
func (c *h2client) answer(stream uint32, want string) {
	c.t.Helper()
	c.until(fmt.Sprintf("an answer on stream %d", stream), func() bool { _, ok := c.bodies[stream]; return ok })
	if got := c.bodies[stream]; got != want {
		c.t.Errorf("stream %d is answered %.80q, want %.80q", stream, got, want)
	}
}

// goAway waits for the n-th GOAWAY, which must name last.
func (c *h2client) goAway(n int, last uint32) {
	c.t.Helper()
	c.until(fmt.Sprintf("GOAWAY %d", n), func() bool { return len(c.last) >= n })
	if c.last[n-1] != last {
		c.t.Errorf("GOAWAY %d names stream %d, want %d", n, c.last[n-1], last)
	}
}

// ack answers the PINGs that have come, at least one, and from now on each.
func (c *h2client) ack() {
	c.t.Helper()
	c.until("a PING", func() bool { return len(c.pings) > 0 })
	for _, payload := range c.pings {
		c.frame(kindPing, flagAck, 0, payload)
	}
	c.pings, c.acks = nil, true
}

// roundTrip waits until the server has taken all that was sent.
func (c *h2client) roundTrip() {
	c.t.Helper()
	want := c.pongs + 1
	c.frame(kindPing, 0, 0, []byte("12345678"))
	c.until("the answer to a PING", func() bool { return c.pongs == want })
}

// widen lets the server send without waiting for the client to read.
func (c *h2client) widen() {
	c.t.Helper()
	c.wide = true
	c.frame(kindSettings, 0, 0, []byte{0, 4, 0x7f, 0xff, 0xff, 0xff}) // SETTINGS_INITIAL_WINDOW_SIZE
	c.frame(kindWindowUpdate, 0, 0, []byte{0x7f, 0xff, 0, 0})
}

// ends reads to the end, which must be a good one.
func (c *h2client) ends() {
	c.t.Helper()
	for {
		switch err := c.read(); err {
		case nil:
		case io.EOF:
			return
		default:
			c.t.Fatalf("the connection ends with %v", err)
		}
	}
}
