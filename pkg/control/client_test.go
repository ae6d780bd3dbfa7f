package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/leak"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(dialVariable); address != "" {
		dialAndPrint(address)
		os.Exit(0)
	}
	os.Exit(leak.Main(m))
}

// dialVariable makes the test binary dial the socket that it names, and print the error.
const dialVariable = "CONTROL_TEST_DIAL"

func dialAndPrint(address string) {
	c, err := NewClient(address, "")
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err = c.Server(ctx)
	}
	fmt.Println(err)
}

// server answers every request in the same way.
type server struct {
	status int
	name   string
	body   io.Reader
}

func (s *server) RoundTrip(*http.Request) (*http.Response, error) {
	header := http.Header{}
	header.Set(HeaderName, s.name)
	return &http.Response{Status: "who knows", StatusCode: s.status, Header: header, Body: io.NopCloser(s.body)}, nil
}

func clientOf(t testing.TB, s *server) *Client {
	t.Helper()
	c, err := NewClient("/nowhere/web.ctl", "")
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport = s
	return c
}

// endless is an answer without an end.
type endless struct {
	text string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e.text) <= len(p) {
		n += copy(p[n:], e.text)
	}
	if n == 0 {
		n = copy(p, e.text)
	}
	e.read += n
	return n, nil
}

// Whoever serves in the place of crank must not fill the memory: the container's is the app's as well.
func TestEndlessAnswers(t *testing.T) {
	const slack = 1 << 20
	for _, text := range []string{"x", `"`} {
		for name, call := range map[string]func(*Client) error{
			"status": func(c *Client) error { _, err := c.Status(t.Context()); return err },
			"run":    func(c *Client) error { _, err := c.Run(t.Context(), RunRequest{}, nil); return err },
			"events": func(c *Client) error { return c.Events(t.Context(), 0, true, nil) },
		} {
			for _, status := range []int{200, 409} {
				body := &endless{text: text}
				if err := call(clientOf(t, &server{status: status, body: body})); err == nil {
					t.Errorf("%s, %q, %d: no error", name, text, status)
				}
				if body.read > maxAnswer+slack {
					t.Errorf("%s, %q, %d: %d bytes were read", name, text, status, body.read)
				}
			}
		}
	}
}

// An answer without a last line was lost, and no list of events needs one.
func TestStreamEnds(t *testing.T) {
	for _, test := range []struct {
		body string
		want error
	}{
		{"", ErrLost},
		{`{"event":{"seq":1}}`, ErrLost},
		{"{\"event\":{\"seq\":1}}\n{\"resu", ErrLost},
		{"{\"event\":{\"seq\":1}}\n{\"result\":{\"ok\":true}}\n", nil},
		{`{"result":{"ok":true}}`, nil},
	} {
		seen := 0
		result, err := clientOf(t, &server{status: 200, body: strings.NewReader(test.body)}).Run(t.Context(), RunRequest{}, func(Event) { seen++ })
		if !errors.Is(err, test.want) || (err == nil) != (result != nil) || seen != strings.Count(test.body, "event") {
			t.Errorf("%q: %v, %v, %d events", test.body, result, err, seen)
		}
	}
	if err := clientOf(t, &server{status: 200, body: strings.NewReader(`{"event":{"seq":1}}`)}).Events(t.Context(), 0, false, nil); err != nil {
		t.Error(err)
	}
}

// FuzzAnswer: whatever serves the socket, each call ends, with a result or an error and never with neither.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		"", "{}", "null", `{"ok":true}`, "[{}]", `{"event":{"seq":1,"kind":"ready"}}` + "\n" + `{"result":{"ok":true}}`,
		`{"result":{"ok":false,"saved":true},"error":{"code":"failed","message":"no"}}`, `{"result":{"saved":7}}`, `{"error":{}}`, "\n\n{",
		`{"code":"busy","message":"generation 4 is starting"}`, `{"event":null,"result":null}`, `{"time":"yesterday"}`, `{"generations":[null]}`,
	} {
		f.Add(200, "web", []byte(body))
		f.Add(409, "", []byte(body))
	}
	f.Add(301, "x", []byte("<html>"))
	f.Fuzz(func(t *testing.T, status int, name string, body []byte) {
		if status < 100 || status > 999 {
			return
		}
		ctx := context.Background()
		client := func() *Client { return clientOf(t, &server{status, name, bytes.NewReader(body)}) }
		seen := 0
		observe := func(Event) { seen++ }
		for verb, call := range map[string]func() (*Result, error){
			"run":  func() (*Result, error) { return client().Run(ctx, RunRequest{}, observe) },
			"wait": func() (*Result, error) { return client().Wait(ctx, "ready", 0, observe) },
		} {
			seen = 0
			result, err := call()
			if err == nil && (result == nil || status/100 != 2) {
				t.Errorf("%s: %d %q: neither a result nor an error", verb, status, body)
			}
			if lines := bytes.Count(body, []byte("\n")) + 1; seen > lines {
				t.Errorf("%s: %q: %d events", verb, body, seen)
			}
		}
		if _, err := client().Status(ctx); err == nil && status/100 != 2 {
			t.Errorf("status: %d is a success", status)
		}
		_ = client().Events(ctx, 0, true, observe)
		_, _ = client().Info(ctx)
		_, _ = client().PS(ctx, nil, 0)
		_, _ = client().Kill(ctx, KillRequest{})
		_, _ = client().Abort(ctx)
	})
}

// FuzzReady: only an answer that says the same twice counts.
func FuzzReady(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"ready\":true}\n", "HTTP/1.0 503 Service Unavailable\r\n\r\n{\"ready\":false,\"reason\":\"no\"}",
		"HTTP/1.0 200 OK\r\n\r\n{\"ready\":false}", "HTTP/1.0 403\r\n\r\n{\"code\":\"denied\",\"message\":\"no\"}", "", "\r\n\r\n", "HTTP/1.0 200",
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		ready, err := parseReady(answer)
		if ready.Ready && (err != nil || !bytes.Contains(answer, []byte(" 200"))) {
			t.Errorf("%q is ready, %v", answer, err)
		}
	})
}
