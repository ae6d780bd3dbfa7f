package servers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The record types of FastCGI 1.0 that are used here.
const (
	fcgiBegin  = 1
	fcgiEnd    = 3
	fcgiParams = 4
	fcgiStdin  = 5
	fcgiStdout = 6
	fcgiStderr = 7
)

// askFastCGI asks a FastCGI responder for /srv/www/index.php, as a web server does without keep-alive.
func askFastCGI(i *instance, path string) (string, error) {
	conn, err := net.DialTimeout("tcp", i.address[0], tooLate)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(tooLate))
	var params []byte
	for _, pair := range [][2]string{
		{"SCRIPT_FILENAME", i.root + "/srv/www/index.php"},
		{"REQUEST_METHOD", "GET"},
		{"REQUEST_URI", path},
	} {
		params = append(append(params, byte(len(pair[0])), byte(len(pair[1]))), pair[0]+pair[1]...)
	}
	begin := []byte{0, 1, 0, 0, 0, 0, 0, 0} // the role of a responder, no keep-alive
	var request []byte
	for _, r := range []struct {
		kind byte
		body []byte
	}{{fcgiBegin, begin}, {fcgiParams, params}, {fcgiParams, nil}, {fcgiStdin, nil}} {
		request = append(request, 1, r.kind, 0, 1, byte(len(r.body)>>8), byte(len(r.body)), 0, 0)
		request = append(request, r.body...)
	}
	if _, err := conn.Write(request); err != nil {
		return "", err
	}
	return readFastCGI(bufio.NewReader(conn))
}

// readFastCGI reads to the end of the request, and returns the body of the answer.
func readFastCGI(from io.Reader) (string, error) {
	var out, stderr strings.Builder
	for {
		var header [8]byte
		if _, err := io.ReadFull(from, header[:]); err != nil {
			return "", fmt.Errorf("after %d bytes: %w", out.Len(), err)
		}
		length, padding := binary.BigEndian.Uint16(header[4:]), header[6]
		body := make([]byte, int(length)+int(padding))
		if _, err := io.ReadFull(from, body); err != nil {
			return "", err
		}
		switch header[1] {
		case fcgiStdout:
			out.Write(body[:length])
		case fcgiStderr:
			stderr.Write(body[:length])
		case fcgiEnd:
			head, text, ok := strings.Cut(out.String(), "\r\n\r\n")
			if !ok || strings.Contains(head, "Status:") || stderr.Len() > 0 {
				return "", errors.New("answered " + out.String() + stderr.String())
			}
			return text, nil
		}
	}
}
