package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/control"
)

// instance is a crank that runs, under the name bench in a runtime directory of its own.
type instance struct {
	*process
	prefix, ctl string
	client      *control.Client
}

// startCrank starts crank and waits until its app is ready; the caller stops it.
func (b *bench) startCrank(ctx context.Context, o options, flags []string, app ...string) (*instance, error) {
	prefix, err := os.MkdirTemp(b.dir, "crank-")
	if err != nil {
		return nil, err
	}
	argv := append([]string{b.program("crank"), "-name", "bench", "-prefix", prefix}, flags...)
	i := &instance{prefix: prefix, ctl: filepath.Join(prefix, "bench.ctl")}
	if i.client, err = control.NewClient(i.ctl, ""); err != nil {
		return nil, err
	}
	if i.process, err = b.start(o, append(append(argv, "--"), app...)...); err != nil {
		return nil, err
	}
	err = eventually(func() error {
		select {
		case <-i.done:
			return i.fail(errors.New("it has ended"))
		default:
		}
		ready, err := i.client.Ready(ctx)
		if err == nil && !ready.Ready {
			err = errors.New(ready.Reason)
		}
		return err
	})
	if err != nil {
		i.stop(syscall.SIGKILL)
		return nil, i.fail(err)
	}
	return i, nil
}

// address returns where the first socket is bound.
func (i *instance) address(ctx context.Context) (string, error) {
	info, err := i.client.Info(ctx)
	if err != nil {
		return "", err
	}
	_, address, _ := strings.Cut(info.Sockets[0].Bound, "://")
	return address, nil
}

// reload asks for a swap and waits for its outcome. It speaks the protocol of pkg/control by itself, to take as
// little time as possible, and returns when it began to.
func (i *instance) reload() (began int64, err error) {
	const body = `{"wait":true}`
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: crank\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		control.PathReload, len(body), body)
	began = now()
	conn, err := net.Dial("unix", i.ctl)
	if err != nil {
		return began, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return began, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return began, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return began, fmt.Errorf("%s: %s", answer.Status, text)
	}
	for lines := json.NewDecoder(answer.Body); ; {
		var line control.Progress
		switch err := lines.Decode(&line); {
		case err != nil:
			return began, err
		case line.Error != nil:
			return began, fmt.Errorf("%w: %+v", line.Error, line.Result)
		case line.Result != nil:
			return began, nil
		}
	}
}

// reports is the socket to which the apps of swaps say when they were ready and told to stop.
type reports struct {
	path   string
	socket *net.UnixConn
}

func (b *bench) openReports() (*reports, error) {
	r := &reports{path: filepath.Join(b.dir, "reports")}
	os.Remove(r.path)
	var err error
	r.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path, Net: "unixgram"})
	return r, err
}

func (r *reports) close() { r.socket.Close() }

// variable is for the environment of the app.
func (r *reports) variable() string { return "BENCH_REPORT=" + r.path }

// next returns what an app has said: ready or stop, and when.
func (r *reports) next() (what string, pid int, when int64, err error) {
	buf := make([]byte, 100)
	r.socket.SetReadDeadline(deadline())
	n, err := r.socket.Read(buf)
	if err != nil {
		return "", 0, 0, err
	}
	_, err = fmt.Sscan(string(buf[:n]), &what, &pid, &when)
	return what, pid, when, err
}

// swapped returns when the new generation was ready and when the old one was told to stop, in any order.
func (r *reports) swapped() (ready, stop int64, err error) {
	for range 2 {
		what, _, when, err := r.next()
		switch {
		case err != nil:
			return 0, 0, err
		case what == "ready":
			ready = when
		case what == "stop":
			stop = when
		}
	}
	if ready == 0 || stop == 0 {
		return 0, 0, errors.New("the apps have said something else than ready and stop")
	}
	return ready, stop, nil
}
