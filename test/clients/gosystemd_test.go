package clients

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/pkg/control"
)

// TestPacketConns: every datagram is answered, by whichever generation has read it.
func TestPacketConns(t *testing.T) {
	i := start(t, nil, []string{"dns=udp4://127.0.0.1:0"}, filepath.Join(bin, "gosystemd"), "-via", "packets")
	conn, err := net.Dial("udp", i.sockets["dns"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	seen := map[string]int{}
	ask := func() string {
		t.Helper()
		buf := make([]byte, 64)
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("a datagram is not answered: %v", err)
		}
		seen[string(buf[:n])]++
		return string(buf[:n])
	}
	for n := 1; n <= 3; n++ {
		if got, want := ask(), fmt.Sprintf("generation %d\n", n); got != want {
			t.Errorf("answered by %q, want %q", got, want)
		}
		if n == 3 {
			break
		}
		swapped := make(chan struct{})
		go func() {
			defer close(swapped)
			i.reload()
			i.wait("idle")
		}()
		for under := true; under; {
			ask()
			select {
			case <-swapped:
				under = false
			default:
			}
		}
	}
	t.Logf("datagrams answered: %v", seen)
	i.end("READY")
}

// TestReloading: an app that reloads itself stays the one that serves, and ready.
func TestReloading(t *testing.T) {
	i := start(t, nil, []string{web}, filepath.Join(bin, "gosystemd"))
	before := i.current()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := i.client.Kill(ctx, control.KillRequest{States: []string{"ready"}, Signal: "USR2"}); err != nil {
		t.Fatal(err)
	}
	for i.current().Status != "reloaded" {
		if ctx.Err() != nil {
			t.Fatalf("its status is %q", i.current().Status)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if after := i.current(); after.PID != before.PID {
		t.Errorf("the app is %+v, was %+v", after, before)
	}
	i.end("RELOADING")
}

// TestWatchdog: SdWatchdogEnabled knows the period that crank was given.
func TestWatchdog(t *testing.T) {
	help, err := exec.Command(filepath.Join(bin, "crank"), "-help").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(help), "-watchdog-timeout") {
		notTested(t, "go-systemd SdWatchdogEnabled", "this crank has no -watchdog-timeout", nil)
		return
	}
	i := start(t, []string{"-watchdog-timeout", "90s"}, []string{web}, filepath.Join(bin, "gosystemd"))
	output, err := os.ReadFile(i.output)
	if err != nil || !strings.Contains(string(output), "watchdog 1m30s\n") {
		t.Errorf("the app does not know its period: error %v", err)
	}
	i.end("READY")
}
