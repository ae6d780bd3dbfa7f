package peers

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// udp sends a datagram, and sends it again if there is no answer.
func udp(s *server) (string, error) {
	conn, err := net.Dial("udp", "127.0.0.1:"+s.port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	err = eventually(func() error {
		if _, err := conn.Write([]byte("?")); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		_, err := conn.Read(make([]byte, 100))
		return err
	})
	address, _, _ := strings.Cut(s.variable, "=")
	return strings.Replace(address, s.port, "PORT", 1) + " answers", err
}

// nextGeneration compares the first worker's SERVER_STARTER_GENERATION with the one after HUP.
func nextGeneration(s *server) (string, error) {
	if err := s.p.send(syscall.SIGHUP); err != nil {
		return "", err
	}
	next, err := s.p.line("generation")
	return s.number + ", then " + next, err
}

// stdins starts the program with a file as stdin, and sees whether a worker that change leads to has it too.
func stdins(change func(*server) error) func(*run) (string, error) {
	return func(r *run) (string, error) {
		in, err := os.Create(filepath.Join(r.dir, "in"))
		if err != nil {
			return "", err
		}
		defer in.Close()
		r.stdin = in
		return serving(nil, func(s *server) (string, error) {
			if err := change(s); err != nil {
				return "", err
			}
			next, err := s.p.line("stdin")
			if next == s.stdin && next == in.Name() {
				next = "the first one's"
			}
			return next, err
		})(r)
	}
}

func killWorker(s *server) error {
	pid, err := s.p.app("player")
	return errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
}

func hup(s *server) error { return s.p.send(syscall.SIGHUP) }
