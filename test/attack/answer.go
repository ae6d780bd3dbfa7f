package attack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Nothing is an empty response to any HTTP/1.1 request, after which the connection stays open.
const Nothing = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// WriteAs makes another process, with this user and group id, write text to a connection. It needs root.
func WriteAs(uid int, conn *net.UnixConn, text string) error {
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command("sh", "-c", `printf %s "$1" >&3`, "sh", text)
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot write as uid %d: %w: %s", uid, err, out)
	}
	return nil
}

// Accept calls serve with each connection, until the end of the test, which closes them all. It
// closes l.
func Accept(t testing.TB, l net.Listener, serve func(*net.UnixConn)) {
	t.Helper()
	var serving sync.WaitGroup
	var lock sync.Mutex
	var conns []net.Conn
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			lock.Lock()
			conns = append(conns, conn)
			lock.Unlock()
			serving.Go(func() { serve(conn.(*net.UnixConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		lock.Lock()
		for _, c := range conns {
			c.Close()
		}
		lock.Unlock()
		serving.Wait()
	})
}

// AnswerAs makes processes of a user answer each request on l with Nothing.
func AnswerAs(t testing.TB, l net.Listener, uid int) {
	t.Helper()
	Accept(t, l, func(conn *net.UnixConn) {
		for ReadRequest(conn) == nil {
			if err := WriteAs(uid, conn, Nothing); err != nil {
				t.Error(err)
			}
		}
	})
}

// ReadRequest reads a request without a body.
func ReadRequest(conn io.Reader) error {
	line, lines := "", bufio.NewReader(conn)
	for !strings.HasPrefix(line, "\r\n") {
		var err error
		if line, err = lines.ReadString('\n'); err != nil {
			return err
		}
	}
	if lines.Buffered() > 0 {
		return errors.New("data after the request")
	}
	return nil
}
