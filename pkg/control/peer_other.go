//go:build !linux

package control

import "net"

// checkServer trusts the permissions of the socket: crank itself runs on Linux, so what is served
// here comes through a tunnel that the user made.
func checkServer(net.Conn, string) error { return nil }
