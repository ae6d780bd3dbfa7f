package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crankctl/crank/test/ports"
)

// server is a program that holds sockets, with its worker.
type server struct {
	r        *run
	p        *process
	port     string
	variable string // the first worker's SERVER_STARTER_PORT
	number   string // and its SERVER_STARTER_GENERATION
	stdin    string // and its stdin
	backlog  string // of its first TCP socket
	first    string // the pid that it answers with
}

// launch starts the program with a worker.
func (r *run) launch(args ...string) (*server, error) {
	s := &server{r: r, port: ports.Unused()}
	fill := strings.NewReplacer("{port}", s.port, "{dir}", r.dir)
	flags := base(r.who, r.flags, r.bare)
	for i := range flags {
		flags[i] = fill.Replace(flags[i])
	}
	r.flags = flags
	var err error
	s.p, err = r.start(append([]string{player, "worker", "-dir", r.dir}, args...)...)
	return s, err
}

// base adds to flags what every story has.
func base(program who, flags []string, bare bool) []string {
	bound := bare || slices.ContainsFunc(flags, func(flag string) bool {
		return flag == "-bind" || strings.HasPrefix(flag, "--port") || strings.HasPrefix(flag, "--path")
	})
	all, socket := []string{"--interval=1"}, []string{"--port=127.0.0.1:{port}"}
	if program == crank {
		all = strings.Fields("-profile server-starter -ready notify -settle 0 -ctl {dir}/ctl -conf off -output inherit")
		socket = []string{"-bind", "tcp4://127.0.0.1:{port}"}
	}
	if bound {
		socket = nil
	}
	return slices.Concat(all, socket, flags)
}

// serving starts the program with a worker that has these options, waits until it is ready, and returns what play finds.
func serving(args []string, play func(*server) (string, error)) func(*run) (string, error) {
	return func(r *run) (string, error) {
		s, err := r.launch(args...)
		if err != nil {
			return "", err
		}
		if err := s.ready(); err != nil {
			return "", err
		}
		return play(s)
	}
}

// ready waits until the first worker serves, and crank knows it. start_server does not tell when it has stopped waiting for the worker; it
// acts on signals only then.
func (s *server) ready() (err error) {
	for line := ""; !strings.HasPrefix(line, "ready"); {
		if line, err = s.p.line(""); err != nil {
			return err
		}
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "generation":
			s.number = value
		case "stdin":
			s.stdin = value
		case "PORT":
			s.variable = value
		case "backlog":
			s.backlog = value
		case "ready":
			s.first = value
		}
	}
	if s.r.who != crank {
		return nil
	}
	return eventually(func() error {
		if _, err := s.crankctl("wait", "-ready"); err != nil {
			return err
		}
		return s.r.catches(s.p)
	})
}

// optional is a story about an option that crank refuses.
func optional(play func(*server) (string, error)) func(*run) (string, error) {
	return func(r *run) (string, error) {
		s, err := r.launch()
		if err != nil || r.who != crank {
			if err != nil {
				return "", err
			}
			return play(s)
		}
		code, err := s.p.end()
		return "no such option: " + code, err
	}
}

// crankctl runs a verb.
func (s *server) crankctl(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append([]string{"-ctl", filepath.Join(s.r.dir, "ctl")}, args...)
	return exec.CommandContext(ctx, filepath.Join(bin, "crankctl"), args...).Output()
}

// ask connects and returns the pid that answers.
func (s *server) ask() (string, error) {
	return get("tcp", "127.0.0.1:"+s.port)
}

func get(network, address string) (string, error) {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(conn)
	if err == nil && len(text) == 0 {
		err = errors.New("there is no answer")
	}
	return string(text), err
}

// other waits until another worker than the first one answers.
func (s *server) other() (pid string, err error) {
	err = eventually(func() (err error) {
		if pid, err = s.ask(); err == nil && pid == s.first {
			err = fmt.Errorf("only %s answers\n%s", pid, &s.p.stderr)
		}
		return err
	})
	return pid, err
}

// count returns how many workers have been started ("starts"), or have served ("serves").
func (s *server) count(what string) int {
	text, _ := os.ReadFile(filepath.Join(s.r.dir, what))
	return len(text)
}

func (s *server) starts(n int) error {
	return eventually(func() error {
		if got := s.count("starts"); got < n {
			return fmt.Errorf("%d workers have been started, want %d\n%s", got, n, &s.p.stderr)
		}
		return nil
	})
}

// mark makes or removes a file that the worker looks for.
func (s *server) mark(name string, there bool) error {
	path := filepath.Join(s.r.dir, name)
	if !there {
		return os.Remove(path)
	}
	return os.WriteFile(path, nil, 0o644)
}
