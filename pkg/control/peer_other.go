//go:build !linux

package control

import (
	"context"
	"net"
	"os"
)

// identify trusts the permissions of the socket: crank itself runs on Linux, so what is served
// here comes through a tunnel that the user made.
func identify(_ context.Context, conn net.Conn, _ string) (checked net.Conn, uid int, err error) {
	return conn, os.Geteuid(), nil
}
