//go:build linux

package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// A suspended or busy instance still counts: a verb for it must not go to the only other one.
func TestSilentInstance(t *testing.T) {
	dir := place(t)
	serve(t, dir, "web")
	silent, err := net.Listen("unix", filepath.Join(dir, "api.ctl"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	got := call(nil, "reload")
	if got.code != exitUsage || !strings.Contains(got.stderr, "api.ctl, ") || !strings.Contains(got.stderr, "web.ctl: choose one") {
		t.Errorf("%+v", got)
	}
}
