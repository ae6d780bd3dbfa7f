package script

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/crankctl/crank/test/ports"
)

func (s *story) code(not bool, args []string) {
	s.usage(!not && len(args) > 1, "code N PROGRAM [ARG ...]")
	err := s.ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		s.ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		s.ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func (s *story) eventually(not bool, args []string) {
	s.usage(len(args) > 0, "eventually PROGRAM [ARG ...]")
	model := s.command(args)
	s.await(strings.Join(args, " "), func() bool {
		cmd := exec.Cmd{Path: model.Path, Args: model.Args, Env: model.Env, Dir: model.Dir}
		return (cmd.Run() != nil) == not
	})
}

func (s *story) appears(not bool, args []string) {
	s.usage(!not && len(args) == 2, "appears REGEXP FILE")
	want, file := s.pattern(args[0]), s.ts.MkAbs(args[1])
	s.await(args[0]+" in "+args[1], func() bool {
		content, _ := os.ReadFile(file)
		return want.Match(content)
	})
}

func (s *story) serves(not bool, args []string) {
	s.usage(!not && len(args) == 2, "serves NAME|URL REGEXP")
	if got := s.get(args[0]); !s.pattern(args[1]).MatchString(got) {
		s.ts.Fatalf("%s answers %q, want %s", args[0], got, args[1])
	}
}

func (s *story) same(not bool, args []string) {
	s.usage(!not && len(args) == 1, "same NAME")
	want := s.ts.Getenv(args[0] + "_app")
	if got := s.get(args[0]); !strings.HasSuffix(got, " pid "+want+"\n") {
		s.ts.Fatalf("%s answers %q, want pid %s", args[0], got, want)
	}
}

func (s *story) get(where string) string {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(s.url(where))
	s.ts.Check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	s.ts.Check(err)
	return string(body)
}

func (s *story) url(where string) string {
	if strings.Contains(where, "://") {
		return where
	}
	return s.ts.Getenv(where + "_url")
}

func (s *story) dial(name string) net.Conn {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url(name), "http://"), patience)
	s.ts.Check(err)
	s.ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

func (s *story) ask(not bool, args []string) {
	s.usage(!not && len(args) == 1, "ask NAME")
	conn := s.dial(args[0])
	s.asked = append(s.asked, conn)
	_, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	s.ts.Check(err)
}

func (s *story) answered(not bool, args []string) {
	s.usage(!not && len(args) == 1 && len(s.asked) > 0, "answered REGEXP, after an ask")
	conn := s.asked[0]
	s.asked = s.asked[1:]
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	s.ts.Check(err)
	if !s.pattern(args[0]).Match(answer) {
		s.ts.Fatalf("the answer is %q, want %s", answer, args[0])
	}
}

func (s *story) hold(not bool, args []string) {
	s.usage(!not && len(args) == 1, "hold NAME")
	conn := s.dial(args[0])
	s.held = append(s.held, conn)
	s.talk(false, nil)
}

func (s *story) talk(not bool, args []string) {
	s.usage(!not && len(args) == 0 && len(s.held) > 0, "talk, after a hold")
	for _, conn := range s.held {
		_, err := io.WriteString(conn, "hello\n")
		s.ts.Check(err)
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
			s.ts.Fatalf("no echo: %q, %v", line, err)
		}
	}
}

func (s *story) release(not bool, args []string) {
	s.usage(!not && len(args) == 0 && len(s.held) > 0, "release, after a hold")
	s.held[0].Close()
	s.held = s.held[1:]
}

func (s *story) json(not bool, args []string) {
	s.usage(len(args) == 2, "json PATH REGEXP")
	got := s.lookUp(args[0])
	if s.pattern(args[1]).MatchString(got) == not {
		s.ts.Fatalf("%s is %q, want (not: %v) %s", args[0], got, not, args[1])
	}
}

func (s *story) keep(not bool, args []string) {
	s.usage(!not && len(args) == 2, "keep VARIABLE PATH")
	s.ts.Setenv(args[0], s.lookUp(args[1]))
}

// lookUp finds a value in the JSON of the last stdout by a path of keys, indices and "len" for how
// many there are: "generations.0.pid", "sockets.len". Several documents are a list. What is not there
// is "".
func (s *story) lookUp(path string) string {
	var documents []any
	for decoder := json.NewDecoder(strings.NewReader(s.ts.ReadFile("stdout"))); ; {
		var document any
		decoder.UseNumber()
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			break
		} else {
			s.ts.Check(err)
		}
		documents = append(documents, document)
	}
	var at any = documents
	if len(documents) == 1 {
		at = documents[0]
	}
	for key := range strings.SplitSeq(path, ".") {
		at = step(at, key)
	}
	switch at := at.(type) {
	case nil:
		return ""
	case map[string]any, []any:
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		s.ts.Check(encoder.Encode(at))
		return strings.TrimSpace(text.String())
	default:
		return fmt.Sprint(at)
	}
}

func step(at any, key string) any {
	switch at := at.(type) {
	case map[string]any:
		return at[key]
	case []any:
		if key == "len" {
			return len(at)
		}
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(at) {
			return at[i]
		}
	}
	return nil
}

func (s *story) port(not bool, args []string) {
	s.usage(!not && len(args) == 1, "port VARIABLE")
	s.ts.Setenv(args[0], ports.Unused())
}
