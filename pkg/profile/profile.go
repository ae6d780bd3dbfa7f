// Package profile is the presets for servers that take their sockets in a way of their own.
package profile

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Profile is one row of the table.
type Profile struct {
	Name      string
	Doc       string     // for whom it is, and what the server's own configuration must have
	Listen    bool       // LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are set
	Variables []Variable // that carry the sockets as well
	Number    string     // the variable for the generation's number; empty: none
	NonBlock  bool       // a socket for which -bind does not say otherwise is non-blocking
	Settings  []Setting  // defaults of crank's own flags; what was given by flag or variable wins
}

// Variable carries sockets. Its parts may have these in them:
//
//	{fd}       the descriptor
//	{index}    0 for the first socket in a variable of this kind
//	{address}  127.0.0.1:80 or [::1]:80
//	{host}     127.0.0.1 or ::1
//	{port}     80
//	{path}     of a unix socket, or @name
//	{listed}   127.0.0.1:80, localhost:80 or [::1]:80 as -bind has it; 80 for all addresses
type Variable struct {
	Name  string // with {index} there is one variable for each socket
	Inet  string // what it says of a TCP socket
	Unix  string // and of a unix stream socket
	UDP   string // and of a UDP socket; empty: those are left out
	Join  string // between two sockets
	After string // after the last one
	Late  bool   // unix sockets come last
	Owned bool   // an inherited value is replaced, and without sockets it is set to ""
}

// Setting is a default for one of crank's own flags, without the dash.
type Setting struct{ Flag, Value string }

// Default is the profile that holds where none is named.
const Default = "systemd"

// Profiles is the table. What the servers compare with was read in their sources and tried with them:
//
//	nginx            every descriptor in NGINX must have, by getsockname, the address of a listen directive
//	                 (src/core/nginx.c, ngx_add_inherited_sockets; ngx_cycle.c). It leaves their mode as it is, and a
//	                 worker that comes too late for a connection would block in accept, and miss QUIT
//	php-fpm          the key is the address as inet_ntop has it, without brackets, or the path as in listen
//	                 (sapi/fpm/fpm/fpm_sockets.c, fpm_sockets_hash_op). It unlinks that path when it ends.
//	unicorn          descriptors alone, compared by getsockname. It takes LISTEN_FDS too, and would then have
//	                 each socket twice (lib/unicorn/http_server.rb, inherit_listeners!)
//	puma             the text of -b, letter by letter (lib/puma/binder.rb, parse). A socket that no -b names is
//	                 closed and a path unlinked; with LISTEN_FDS there would be two objects for one descriptor.
//	server-starter   as start_server(1) 0.35 writes them: ports first, then paths; the host as it was given, and the port alone
//	                 for all addresses; UDP as TCP; empty without sockets (lib/Server/Starter.pm, start_server; Starlet and
//	                 others die where it is unset). h2o takes the descriptors and compares by getsockname
//	java             System.inheritedChannel is descriptor 0. A JVM ends with 143 on TERM, and prints its threads on QUIT.
var Profiles = []Profile{
	{Name: Default, Listen: true,
		Doc: "servers that know LISTEN_FDS or take a descriptor by its number, and say READY=1"},
	{Name: "nginx", NonBlock: true, Variables: []Variable{{Name: "NGINX", Inet: "{fd}", Unix: "{fd}", UDP: "{fd}", Join: ";", After: ";"}},
		Settings: []Setting{{"stop-signal", "QUIT"}, {"ready", "1s"}},
		Doc:      `a listen directive with the very address of each socket, and "daemon off;"`},
	{Name: "php-fpm", Variables: []Variable{{Name: "FPM_SOCKETS", Inet: "{host}:{port}={fd}", Unix: "{path}.fpm={fd}", Join: ","}},
		Settings: []Setting{{"stop-signal", "QUIT"}},
		Doc: `listen with the socket's address, or its path and ".fpm", since php-fpm unlinks what listen names; ` +
			`process_control_timeout, so that it drains; -ready 1s where it was built without systemd`},
	{Name: "haproxy", Listen: true,
		Settings: []Setting{{"stop-signal", "USR1"}},
		Doc:      "bind fd@3, run as haproxy -Ws; -ready 1s without -Ws"},
	{Name: "unicorn", Variables: []Variable{{Name: "UNICORN_FD", Inet: "{fd}", Unix: "{fd}", Join: ","}},
		Settings: []Setting{{"stop-signal", "QUIT"}, {"ready", "1s"}},
		Doc:      "the very address of each socket after -l"},
	{Name: "puma", Variables: []Variable{{Name: "PUMA_INHERIT_{index}", Inet: "{fd}:tcp://{address}", Unix: "{fd}:unix://{path}"}},
		Settings: []Setting{{"ok-codes", "143"}},
		Doc:      "each socket's address after -b, written as here; before puma 6 the gem sd_notify, or -ready 1s"},
	{Name: "server-starter", Number: "SERVER_STARTER_GENERATION", Variables: []Variable{{Name: "SERVER_STARTER_PORT",
		Inet: "{listed}={fd}", UDP: "{listed}={fd}", Unix: "{path}={fd}", Join: ";", Late: true, Owned: true}},
		Settings: []Setting{{"ready", "1s"}},
		Doc:      "h2o, Starlet, Starman and others that start_server(1) runs"},
	{Name: "java", Listen: true,
		Settings: []Setting{{"stdin-socket", "true"}, {"stop-on", "TERM,INT"}, {"ok-codes", "143"}, {"ready", "10s"}},
		Doc:      "Tomcat, Jetty and others that take System.inheritedChannel(); a probe of -ready is better than a time"},
	{Name: "none",
		Doc: "the sockets are passed, and no variable tells of them; NOTIFY_SOCKET and NOTIFY_FD are set as always"},
}

// Names returns the names, in the order of the table.
func Names() []string {
	var names []string
	for _, p := range Profiles {
		names = append(names, p.Name)
	}
	return names
}

// Find returns the profile of this name.
func Find(name string) (p Profile, ok bool) {
	i := slices.IndexFunc(Profiles, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, false
	}
	return Profiles[i], true
}

// Socket is one that is passed to the server.
type Socket struct {
	FD    int    // in the server
	Bound string // where it is, as a net-uri: tcp://127.0.0.1:80, unix:///run/a.sock
	Host  string // of -bind; empty: all addresses, or not known
}

// Environ returns the variables of the profile for a generation, as "K=V". Sockets of a kind that a variable does not
// support are left out of it, and a variable without sockets is not set unless the profile owns it.
func (p Profile) Environ(sockets []Socket, generation int) []string {
	var env []string
	for _, v := range p.Variables {
		env = append(env, v.environ(sockets)...)
	}
	if p.Number != "" {
		env = append(env, p.Number+"="+strconv.Itoa(generation))
	}
	return env
}

// Owns reports whether an inherited variable must not reach the server: the profile sets its own instead, if any.
func (p Profile) Owns(key string) bool {
	return key != "" && key == p.Number ||
		slices.ContainsFunc(p.Variables, func(v Variable) bool { return v.Owned && v.Name == key })
}

func (v Variable) environ(sockets []Socket) []string {
	if v.Late {
		sockets = slices.Clone(sockets)
		slices.SortStableFunc(sockets, func(a, b Socket) int { return lateness(a) - lateness(b) })
	}
	var names, texts []string
	for _, s := range sockets {
		format, values := v.format(s)
		if format == "" {
			continue
		}
		values = append(values, "{fd}", strconv.Itoa(s.FD), "{index}", strconv.Itoa(len(texts)))
		fill := strings.NewReplacer(values...)
		names = append(names, fill.Replace(v.Name))
		texts = append(texts, fill.Replace(format))
	}
	if len(texts) == 0 && !v.Owned {
		return nil
	}
	if !strings.Contains(v.Name, "{index}") {
		return []string{v.Name + "=" + strings.Join(texts, v.Join) + v.After}
	}
	var env []string
	for i, name := range names {
		env = append(env, name+"="+texts[i])
	}
	return env
}

func lateness(s Socket) int {
	if strings.HasPrefix(s.Bound, "unix") {
		return 1
	}
	return 0
}

// format returns what the variable says of a socket, "" for nothing, and the values to fill in.
func (v Variable) format(s Socket) (format string, values []string) {
	network, where, _ := strings.Cut(s.Bound, "://")
	host, port, _ := net.SplitHostPort(where) // of an address from getsockname
	inet := []string{"{address}", where, "{host}", host, "{port}", port, "{listed}", s.listed(network, host, port)}
	switch network {
	case "tcp", "tcp4", "tcp6":
		return v.Inet, inet
	case "udp", "udp4", "udp6":
		return v.UDP, inet
	case "unix":
		return v.Unix, []string{"{path}", where}
	}
	return "", nil
}

// listed returns the address in the form of start_server(1).
func (s Socket) listed(network, host, port string) string {
	all := host == "0.0.0.0" || host == "::" && !strings.HasSuffix(network, "6")
	if s.Host == "" && all {
		return port
	}
	return net.JoinHostPort(cmp.Or(s.Host, host), port)
}
