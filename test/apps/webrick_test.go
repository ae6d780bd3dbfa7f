package apps

import (
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/crankctl/crank/test/instance"
)

// WEBrick calls shutdown(2) on its listening sockets, which ends them for everybody who has a copy. That is why
// the document says that it cannot be swapped.
func TestWEBrickEndsTheSocket(t *testing.T) {
	p := program{file: "webrick.rb", needs: []string{"ruby"}, debian: "ruby ruby-webrick"}
	p.installed(t)
	if err := exec.Command("ruby", "-e", `require "webrick"`).Run(); err != nil {
		p.missing(t, "WEBrick")
	}
	i := instance.Start(t, bin, nil, p.build(t, filepath.Join("testdata", p.file))...)
	i.Crankctl("reload")
	i.Crankctl("wait", "-idle")
	conn, err := net.Dial("tcp", i.Address)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the socket has survived a swap of WEBrick (%v): say so in %s", err, document)
	}
}
