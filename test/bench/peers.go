package main

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// peers are the programs that crank is measured beside, by the name in the table: what is executed, and the
// Debian package that has it.
var peers = map[string]struct{ program, debian string }{
	"tini":                    {"tini", "tini"},
	"dumb-init":               {"dumb-init", "dumb-init"},
	"catatonit":               {"catatonit", "catatonit"},
	"s6":                      {"s6-svscan", "s6"},
	"s6-log":                  {"s6-log", "s6"},
	"runit":                   {"runsvdir", "runit"},
	"svlogd":                  {"svlogd", "runit"},
	"Server::Starter":         {"start_server", "libserver-starter-perl"},
	"Starlet":                 {"plackup", "starlet"},
	"systemd-socket-activate": {"systemd-socket-activate", "systemd"},
	"supervisor":              {"supervisord", "supervisor"},
	"gunicorn":                {"gunicorn", "gunicorn"},
	"nginx":                   {"nginx", "nginx-light"},
	"HAProxy":                 {"haproxy", "haproxy"},
}

// find returns the path of a peer's program; ok is false where it is not installed.
func find(peer string) (path string, ok bool) { return lookup(peers[peer].program) }

// lookup looks where daemons are too, whatever PATH says.
func lookup(program string) (path string, ok bool) {
	for _, candidate := range []string{program, filepath.Join("/usr/sbin", program), filepath.Join("/sbin", program)} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, true
		}
	}
	return "", false
}

// sayPeers says which peers there are, in which version, and which are not, for the chosen benchmarks.
func sayPeers(to io.Writer, chosen []benchmark) (versions []string) {
	var wanted []string
	for _, b := range chosen {
		wanted = append(wanted, b.peers...)
	}
	slices.Sort(wanted)
	for _, name := range slices.Compact(wanted) {
		if _, ok := find(name); !ok {
			fmt.Fprintf(to, "NOT COMPARED, not installed: %s (Debian: %s)\n", name, peers[name].debian)
			continue
		}
		versions = append(versions, name+" "+version(peers[name].debian))
	}
	fmt.Fprintf(to, "beside: %s\n", strings.Join(versions, ", "))
	return versions
}

// version asks dpkg; elsewhere it is not known.
func version(debian string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", debian).Output()
	if err != nil {
		return "(version unknown)"
	}
	return string(out)
}
