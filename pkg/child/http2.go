//go:build unix

package child

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is a connection that was accepted, as net/http sees it. It follows the frames of HTTP/2 that pass,
// since net/http has one GOAWAY only: it names the last stream that the server has read, and what the
// client had begun by then is dropped without a word (http2serverConn.processFrame). A drain is here
//
//	server: GOAWAY(2^31-1), PING     ends no stream, but when the client has read it it begins no other
//	client: PING acknowledged        all that it began before has been read
//	        no stream is open
//	server: PING
//	client: PING acknowledged        it has read every answer: what is closed earlier may be reset, and lost
//	        no stream was begun meanwhile, for as long as linger
//	server: GOAWAY(last), end        net/http can write no more
//	client: end                      until then what it sends is dropped, for as long as linger
//
// net/http knows nothing of this until it reads the end. It ignores the acknowledgement of a PING that
// is not its own (http2serverConn.processPing).
type conn struct {
	net.Conn // as accepted, or TLS over it
	conns    *conns

	tls       *tls.Conn // the same, or nil
	handshake func() error
	tlsState  *tls.ConnectionState // after handshake

	heard atomic.Bool // HTTP/1.1: something has come since the last answer

	writing sync.Mutex // while bytes are written; locked before mu
	out     frames
	pending []byte // frames to be inserted; none after a GOAWAY of net/http, whose last stream must not grow (RFC 9113, 6.8)
	done    bool   // GOAWAY(last) is written; guarded by both

	mu       sync.Mutex
	changed  sync.Cond // acks, over or streams
	in       frames
	matched  int // bytes of the preface, or notHTTP2
	draining bool
	acks     int  // of our PINGs
	over     bool // closed, or net/http has said GOAWAY itself
	last     uint32
	streams  map[uint32]byte // that are open: the sides that have ended, fromClient or fromServer
}

const (
	preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	notHTTP2 = -1

	fromClient = 1
	fromServer = 2
)

func (c *conns) follow(accepted net.Conn) *conn {
	f := &conn{Conn: accepted, conns: c, streams: map[uint32]byte{}}
	f.changed.L = &f.mu
	return f
}

// accepted returns what the app should see.
func accepted(c net.Conn) net.Conn {
	if c, ok := c.(*conn); ok {
		return c.Conn
	}
	return c
}

// NetConn returns the connection that was accepted, as that of [tls.Conn] does.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	c.over = true
	c.changed.Broadcast()
	c.mu.Unlock()
	c.conns.closed(c)
	return err
}

// CloseWrite is used by net/http.
func (c *conn) CloseWrite() error {
	if inner, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return inner.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ReadFrom is used by net/http, for sendfile(2). In HTTP/2 it is not.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// SyscallConn is for those who hijack a connection to wait for it with epoll(7).
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if inner, ok := c.Conn.(syscall.Conn); ok {
		return inner.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c *conn) Read(p []byte) (int, error) {
	if c.tls != nil {
		if err := c.handshake(); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	done := c.done
	if !done {
		c.follow(p[:n])
	}
	c.mu.Unlock()
	if done {
		_, _ = io.Copy(io.Discard, c.Conn) // closing before it is read would reset the connection
		return 0, io.EOF
	}
	return n, err
}

// follow sees what the client sends. mu is held.
func (c *conn) follow(p []byte) {
	if c.matched == notHTTP2 {
		c.heard.Store(c.heard.Load() || len(p) > 0)
		return
	}
	if rest := preface[c.matched:]; rest != "" {
		n := min(len(p), len(rest))
		if string(p[:n]) != rest[:n] {
			c.matched = notHTTP2
			c.heard.Store(true)
			return
		}
		c.matched += n
		p = p[n:]
		if c.draining && c.isHTTP2() {
			go c.goAway()
		}
	}
	c.in.scan(p, c.received)
}

func (c *conn) isHTTP2() bool { return c.matched == len(preface) }

// received is a frame of the client.
func (c *conn) received(f frame) {
	switch {
	case f.kind == kindHeaders && f.stream > c.last:
		c.last = f.stream
		c.streams[f.stream] = 0
	case f.kind == kindPing && f.flags&flagAck != 0 && f.data == pingData:
		c.acks++
		c.changed.Broadcast()
	}
	c.passed(f, fromClient)
}

// passed sees a stream end: from both sides, or reset.
func (c *conn) passed(f frame, side byte) {
	ended, open := c.streams[f.stream]
	if !open {
		return
	}
	if (f.kind == kindData || f.kind == kindHeaders) && f.flags&flagEndStream != 0 {
		ended |= side
	}
	if c.streams[f.stream] = ended; f.kind == kindReset || ended == fromClient|fromServer {
		delete(c.streams, f.stream)
		c.changed.Broadcast()
	}
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	plain := !c.isHTTP2()
	c.mu.Unlock()
	if plain {
		return c.Conn.Write(p)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.done {
		return len(p), nil // an error would make net/http close, and so reset, the connection
	}
	inserted := p
	if c.pending != nil {
		ahead, says := c.out, false
		end := ahead.scan(p, func(f frame) { says = says || f.kind == kindGoAway })
		if end > 0 && !says {
			inserted = slices.Concat(p[:end], c.pending, p[end:])
		}
		if end > 0 || says {
			c.pending = nil
		}
	}
	if n, err := c.Conn.Write(inserted); err != nil {
		return min(n, len(p)), err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.scan(p, func(f frame) {
		if f.kind == kindGoAway {
			c.over = true
			c.changed.Broadcast()
		}
		c.passed(f, fromServer)
	})
	return len(p), nil
}

// insert writes frames between those of net/http: now, or with its next bytes.
func (c *conn) insert(b []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	over := c.over
	c.mu.Unlock()
	switch {
	case over:
		return
	case !c.out.between():
		c.pending = append(c.pending, b...)
		return
	}
	if _, err := c.Conn.Write(b); err != nil {
		_ = c.Close() // net/http finds out by itself
	}
}

// drain begins the drain of a connection, or has it begin with HTTP/2.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.isHTTP2() {
		go c.goAway()
	}
}

// goAway ends an HTTP/2 connection. It returns soon after its end at the latest.
func (c *conn) goAway() {
	c.insert(append(goAwayFrame(maxStream), pingFrame()...))
	last := c.quiet(1)
	for pings := 2; ; pings++ {
		c.insert(pingFrame())
		if now := c.quiet(pings); now != last {
			last = now // that one's answer may be on its way
			continue
		}
		time.Sleep(linger) // no event reports that the client will not begin another stream
		if c.finish(last) {
			return
		}
		last = c.quiet(pings)
	}
}

// quiet waits until so many PINGs are acknowledged and no stream is open, or it is over. It returns the last stream.
func (c *conn) quiet(pings int) (last uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.over && (c.acks < pings || len(c.streams) > 0) {
		c.changed.Wait()
	}
	return c.last
}

// finish ends it if nothing is under way and no stream was begun after last, and reports whether it is over.
func (c *conn) finish(last uint32) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return true
	}
	if c.last != last || len(c.streams) > 0 || !c.in.between() || !c.out.between() {
		return false
	}
	c.done = true
	c.SetDeadline(time.Now().Add(linger))
	if _, err := c.Conn.Write(goAwayFrame(c.last)); err == nil {
		_ = c.CloseWrite() // the reader closes it
	}
	return true
}

// The frames of HTTP/2: RFC 9113, 4.1 and 6.

const (
	kindData         = 0x0
	kindHeaders      = 0x1
	kindReset        = 0x3
	kindPushPromise  = 0x5
	kindPing         = 0x6
	kindGoAway       = 0x7
	kindContinuation = 0x9

	flagAck        = 0x1 // of PING
	flagEndStream  = 0x1 // of DATA and HEADERS
	flagEndHeaders = 0x4 // of HEADERS, PUSH_PROMISE and CONTINUATION

	maxStream   = 1<<31 - 1
	frameHeader = 9
)

var pingData = [8]byte{'c', 'r', 'a', 'n', 'k'}

func pingFrame() []byte {
	return append([]byte{0, 0, 8, kindPing, 0, 0, 0, 0, 0}, pingData[:]...)
}

// goAwayFrame says NO_ERROR.
func goAwayFrame(last uint32) []byte {
	b := []byte{0, 0, 8, kindGoAway, 0, 0, 0, 0, 0}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, last), 0)
}

// frame is one that has passed.
type frame struct {
	kind, flags byte
	stream      uint32
	data        [8]byte // the first bytes of the payload
}

// frames follows the frames of one direction, in whatever pieces they come.
type frames struct {
	head  [frameHeader + 8]byte
	have  int  // of head; 0: between two frames
	left  int  // of the payload
	begun bool // one has passed: the first is SETTINGS
	block bool // in the middle of a block of headers, where no other frame may be
}

// between reports whether another frame may be inserted.
func (f *frames) between() bool { return f.begun && f.have == 0 && !f.block }

// scan takes the next bytes. It calls passed at the end of each frame, and returns the end of the last one
// in p after which another may be inserted, or 0.
func (f *frames) scan(p []byte, passed func(frame)) (end int) {
	for at := 0; at < len(p); {
		if f.have < frameHeader {
			n := copy(f.head[f.have:frameHeader], p[at:])
			f.have += n
			at += n
			if f.have < frameHeader {
				break
			}
			f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
		}
		n := min(f.left, len(p)-at)
		f.have += copy(f.head[f.have:], p[at:at+n])
		f.left -= n
		at += n
		if f.left > 0 {
			break
		}
		passed(f.pass())
		if f.between() {
			end = at
		}
	}
	return end
}

// pass is the end of a frame.
func (f *frames) pass() frame {
	is := frame{kind: f.head[3], flags: f.head[4], stream: binary.BigEndian.Uint32(f.head[5:]) & maxStream}
	copy(is.data[:], f.head[frameHeader:f.have])
	switch is.kind {
	case kindHeaders, kindPushPromise, kindContinuation:
		f.block = is.flags&flagEndHeaders == 0
	}
	f.begun, f.have = true, 0
	return is
}
