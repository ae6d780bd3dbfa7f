package sockets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// advise says which address cannot be bound, why, and what to do about it.
func advise(a Address, err error) error {
	advice := inetAdvice(a, err)
	if slices.Contains(unixNetworks, a.Network) {
		advice = unixAdvice(a, err)
	}
	if advice != "" {
		advice = ": " + advice
	}
	return fmt.Errorf("cannot bind %s: %w%s", a, err, advice)
}

func inetAdvice(a Address, err error) string {
	switch {
	case errors.Is(err, syscall.EACCES):
		first := sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)
		if a.Port >= first {
			return ""
		}
		return fmt.Sprintf("ports below %d (net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE: "+
			"use a port from %d on, set that sysctl to %d, or add the capability", first, first, a.Port)
	case errors.Is(err, syscall.EADDRINUSE):
		return "another socket has this port: stop its owner (ss -lnp shows it), or use another port"
	case errors.Is(err, syscall.EAFNOSUPPORT):
		if a.is4() {
			return fmt.Sprintf("there is no IPv4 here: use %s6://", a.Network[:3])
		}
		return fmt.Sprintf("there is no IPv6 here: use %s4://", a.Network[:3])
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("no interface here has this address: use one that ip addr shows, or :%d for all", a.Port)
	}
	return ""
}

func unixAdvice(a Address, err error) string {
	dir := filepath.Dir(a.Path)
	switch {
	case errors.Is(err, syscall.EADDRINUSE): // an abstract name goes with its process
		return errAlive.Error()
	case errors.Is(err, syscall.ENOENT):
		return fmt.Sprintf("directory %s does not exist: create it first", dir)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Sprintf("%s is not a directory: use another path", dir)
	case errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("uid %d needs write and search permission on directory %s", os.Geteuid(), dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("directory %s is read-only: use one on a volume or tmpfs", dir)
	}
	return ""
}
