//go:build linux

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// receive answers like crank: it closes what comes with a message once it has read the ones before.
func receive(t *testing.T, address string) <-chan string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	messages := make(chan string, 10)
	go func() {
		defer close(messages)
		content, rights := make([]byte, 4096), make([]byte, 256)
		for {
			n, m, _, _, err := conn.ReadMsgUnix(content, rights)
			if err != nil {
				return
			}
			messages <- string(content[:n])
			controls, _ := syscall.ParseSocketControlMessage(rights[:m])
			for _, c := range controls {
				fds, _ := syscall.ParseUnixRights(&c)
				for _, fd := range fds {
					syscall.Close(fd)
				}
			}
		}
	}()
	return messages
}

func TestNotify(t *testing.T) {
	for _, address := range []string{filepath.Join(place(t), "notify"), "@crankctl-test-" + filepath.Base(place(t))} {
		messages := receive(t, address)
		env := []string{"NOTIFY_SOCKET=" + address}
		check(t, call(env, "notify", "READY=1", "STATUS=200 routes"), output{})
		for _, want := range []string{"READY=1\nSTATUS=200 routes", "BARRIER=1"} {
			if got := next(t, messages); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		check(t, call(env, "notify", "-no-block", "STOPPING=1"), output{})
		if got := next(t, messages); got != "STOPPING=1" {
			t.Errorf("got %q", got)
		}
	}
}

func TestNotifyNobody(t *testing.T) {
	dir := place(t)
	if got := call(nil, "notify", "READY=1"); got.code != exitUnreachable || !strings.Contains(got.stderr, "NOTIFY_SOCKET") {
		t.Errorf("%+v", got)
	}
	for _, address := range []string{dir + "/not", "vsock:2:1", "@crankctl-test-nobody"} {
		if got := call([]string{"NOTIFY_SOCKET=" + address}, "notify", "READY=1"); got.code != 1 {
			t.Errorf("%s: %+v", address, got)
		}
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: dir + "/deaf"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	got := call([]string{"NOTIFY_SOCKET=" + dir + "/deaf"}, "notify", "-timeout", "0.05", "READY=1")
	if got.code != exitTimeout || time.Since(began) > barrierTimeout {
		t.Errorf("%+v after %v", got, time.Since(began))
	}
	if _, err := os.Lstat(dir + "/deaf"); err != nil {
		t.Error(err)
	}
}

func next(t *testing.T, messages <-chan string) string {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no message came")
		return ""
	}
}
