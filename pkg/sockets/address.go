package sockets

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultName is the name of a socket that was given none, as systemd has it (sd_listen_fds(3)).
const DefaultName = "unknown"

// maxPath is what sun_path holds besides its zero byte (unix(7)).
const maxPath = 107

// Address is one parsed net-uri: where a socket is to be, and how it is to be made.
//
//	[name=]path                        a unix stream socket; a path has no ":" in this form
//	[name=][host]:port                 TCP over IPv6 and IPv4
//	[name=]tcp[46]://[host]:port       also udp, udp4, udp6
//	[name=]unix://path                 also unixpacket, unixgram; "@name" is abstract
//	[name=]fd://n                      inherited, by its number
//	[name=]fd://name                   inherited, by the name it was passed with: see Passed
//
// Each may end in "?option=value&option=value". A host is a literal address or localhost. Nothing
// is percent-decoded, so a path can have no "?".
type Address struct {
	Name    string // in LISTEN_FDNAMES; need not be unique; empty: not given
	Network string // tcp tcp4 tcp6 udp udp4 udp6 unix unixpacket unixgram fd
	Host    string // "": all addresses
	Port    int    // 0: the kernel chooses
	Path    string // "@name": abstract
	FD      int
	FDName  string // instead of FD, until Passed.Resolve
	Options Options
}

// Options of an Address. The zero value is what holds where none is given.
type Options struct {
	Backlog   int           // 0: net.core.somaxconn
	V6Only    Switch        // Default: Off for tcp and udp, On for tcp6 and udp6
	Mode      fs.FileMode   // of a unix socket's file; 0: what the umask leaves
	User      string        // its owner, by name or number; "": crank's own
	Group     string        // its group likewise
	ReusePort bool          // SO_REUSEPORT
	NonBlock  Switch        // O_NONBLOCK, for every process that shares the socket; Default: Off
	Defer     time.Duration // TCP_DEFER_ACCEPT, whole seconds; 0: off
}

// Switch is an option that is on, off, or not given.
type Switch int8

// The positions of a Switch.
const (
	Default Switch = iota
	Off
	On
)

// The networks by what they have in common.
var (
	tcpNetworks    = []string{"tcp", "tcp4", "tcp6"}
	udpNetworks    = []string{"udp", "udp4", "udp6"}
	unixNetworks   = []string{"unix", "unixpacket", "unixgram"}
	inetNetworks   = slices.Concat(tcpNetworks, udpNetworks)
	listenNetworks = slices.Concat(tcpNetworks, []string{"unix", "unixpacket"})
	madeNetworks   = slices.Concat(inetNetworks, unixNetworks)
	networks       = slices.Concat(madeNetworks, []string{"fd"})
)

// option is one "name=value" of a net-uri: the networks that it is for, how it is read, and how it
// is written ("" where it was not given).
type option struct {
	name     string
	networks []string
	parse    func(*Options, string) error
	format   func(Options) string
}

// optionTable has every option, in the order in which String writes them.
var optionTable = []option{
	{"backlog", listenNetworks,
		func(o *Options, v string) (err error) { o.Backlog, err = parseNumber(v, 1<<31-1); return err },
		func(o Options) string { return formatNumber(o.Backlog) }},
	{"v6only", []string{"tcp", "tcp6", "udp", "udp6"},
		func(o *Options, v string) (err error) { o.V6Only, err = parseSwitch(v); return err },
		func(o Options) string { return formatSwitch(o.V6Only) }},
	{"mode", unixNetworks,
		func(o *Options, v string) error {
			mode, err := strconv.ParseUint(v, 8, 32)
			if err != nil || mode < 1 || mode > 0o777 {
				return errors.New("must be octal, from 0001 to 0777, such as 0660")
			}
			o.Mode = fs.FileMode(mode)
			return nil
		},
		func(o Options) string {
			if o.Mode == 0 {
				return ""
			}
			return fmt.Sprintf("%04o", uint32(o.Mode))
		}},
	{"user", unixNetworks,
		func(o *Options, v string) (err error) { o.User, err = parseOwner(v); return err },
		func(o Options) string { return o.User }},
	{"group", unixNetworks,
		func(o *Options, v string) (err error) { o.Group, err = parseOwner(v); return err },
		func(o Options) string { return o.Group }},
	{"reuseport", inetNetworks,
		func(o *Options, v string) (err error) { o.ReusePort, err = parseBool(v); return err },
		func(o Options) string { return formatBool(o.ReusePort) }},
	{"nonblock", madeNetworks,
		func(o *Options, v string) (err error) { o.NonBlock, err = parseSwitch(v); return err },
		func(o Options) string { return formatSwitch(o.NonBlock) }},
	{"defer", tcpNetworks,
		func(o *Options, v string) error {
			seconds, err := parseNumber(v, 1<<31-1)
			o.Defer = time.Duration(seconds) * time.Second
			return err
		},
		func(o Options) string { return formatNumber(int(o.Defer / time.Second)) }},
}

// ParseAddress parses one net-uri. It touches nothing outside: users, groups, interfaces and
// descriptors are looked at by Bind. The error names the part that is wrong, and what to write.
func ParseAddress(uri string) (Address, error) {
	address, err := parseAddress(uri)
	if err != nil {
		return Address{}, fmt.Errorf("cannot parse address %q: %w", uri, err)
	}
	return address, nil
}

func parseAddress(uri string) (a Address, err error) {
	if strings.ContainsRune(uri, 0) {
		return a, errors.New("it has a zero byte")
	}
	// A "=" further on belongs to a path or an option.
	if i := strings.IndexAny(uri, "=/:?@"); i >= 0 && uri[i] == '=' {
		a.Name, uri = uri[:i], uri[i+1:]
		if !validName(a.Name) {
			return a, fmt.Errorf("name %q must be 1 to 64 of A-Z a-z 0-9 _ . -", a.Name)
		}
	}
	where, options, hasOptions := strings.Cut(uri, "?")
	if err = a.parseWhere(where); err != nil {
		return a, err
	}
	if hasOptions {
		err = a.parseOptions(options)
	}
	return a, err
}

// validName reports whether a socket can be called that. A regular expression would take longer to compile than
// crank takes to bind.
func validName(name string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
	return name != "" && len(name) <= 64 && strings.Trim(name, allowed) == ""
}

// parseWhere sets everything but the name and the options.
func (a *Address) parseWhere(where string) error {
	network, rest, hasScheme := strings.Cut(where, "://")
	if !hasScheme {
		network, rest = "unix", where
		if strings.Contains(where, ":") {
			network = "tcp"
		}
	}
	if !slices.Contains(networks, network) {
		return fmt.Errorf("unknown scheme %q: use one of %s", network, strings.Join(networks, ", "))
	}
	a.Network = network
	switch {
	case network == "fd":
		return a.parseFD(rest)
	case slices.Contains(unixNetworks, network):
		// A word alone is rather a mistake ("localhost", "8080", "true") than a file in the working directory.
		if !hasScheme && rest != "" && rest[0] != '@' && !strings.Contains(rest, "/") && !strings.HasSuffix(rest, ".sock") {
			return fmt.Errorf("a path needs a \"/\": write ./%s for a file, %s for a port", rest, portOf(rest))
		}
		return a.parsePath(rest)
	case !hasScheme && strings.Contains(where, "/"):
		return errors.New("a path with a \":\" needs its scheme: write unix://path, or tcp://host:port for an address")
	default:
		return a.parseHostPort(rest)
	}
}

// portOf is what somebody may have meant who wrote a word alone.
func portOf(word string) string {
	if _, err := strconv.Atoi(word); err == nil {
		return ":" + word
	}
	return word + ":8080"
}

func (a *Address) parseFD(descriptor string) error {
	fd, err := strconv.ParseInt(descriptor, 10, 32)
	switch {
	case err == nil && fd >= 0:
		a.FD = int(fd)
	case err == nil || errors.Is(err, strconv.ErrRange) || descriptor == "" || !validPassedName(descriptor):
		return fmt.Errorf("descriptor %q must be a number or an inherited name, such as fd://3 or fd://web", descriptor)
	default:
		a.FDName = descriptor
	}
	return nil
}

func (a *Address) parsePath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is missing: write unix:///run/app.sock or unix://@name")
	case path == "@":
		return errors.New("the abstract name is missing: write unix://@name")
	// The "@" of an abstract name takes the place of a zero byte, so that one more fits.
	case len(strings.TrimPrefix(path, "@")) > maxPath:
		return fmt.Errorf("the path has %d bytes, and a unix socket's can have %d: use a shorter one", len(path), maxPath)
	}
	a.Path = path
	return nil
}

func (a *Address) parseHostPort(hostPort string) error {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return fmt.Errorf("%q must be host:port, :port or [IPv6]:port", hostPort)
	}
	if a.Host, err = a.parseHost(host); err != nil {
		return err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("port %q must be a number from 0 to 65535 (names of services are not looked up)", port)
	}
	a.Port = int(number)
	return nil
}

func (a *Address) parseHost(host string) (string, error) {
	if host == "" || host == "localhost" {
		return host, nil
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "", fmt.Errorf("host %q must be a literal address, localhost, or empty for all addresses "+
			"(names are not looked up)", host)
	case ip.Is4In6():
		return "", fmt.Errorf("host %q is an IPv4 address in IPv6 form: write %s", host, ip.Unmap())
	case ip.Is4() && strings.HasSuffix(a.Network, "6"):
		return "", fmt.Errorf("host %q is IPv4: write %s4://", host, a.Network[:3])
	case ip.Is6() && strings.HasSuffix(a.Network, "4"):
		return "", fmt.Errorf("host %q is IPv6: write %s6://", host, a.Network[:3])
	}
	return ip.String(), nil
}

func (a *Address) parseOptions(options string) error {
	var seen []string
	for pair := range strings.SplitSeq(options, "&") {
		name, value, hasValue := strings.Cut(pair, "=")
		if !hasValue {
			value = "1" // "?reuseport"; the options that are not a switch refuse an empty value below
		}
		i := slices.IndexFunc(optionTable, func(o option) bool { return o.name == name })
		switch {
		case i < 0:
			return fmt.Errorf("unknown option %q: use one of %s", name, optionNames())
		case slices.Contains(seen, name):
			return fmt.Errorf("option %q is given twice", name)
		case !hasValue && !slices.Contains(switches, name):
			return fmt.Errorf("option %q needs a value: write %s=value", name, name)
		case !optionTable[i].fits(*a):
			return fmt.Errorf("option %q is not for %s", name, a.kind())
		}
		if err := optionTable[i].parse(&a.Options, value); err != nil {
			return fmt.Errorf("option %s=%q %w", name, value, err)
		}
		seen = append(seen, name)
	}
	return nil
}

// switches are the options that can be given without a value.
var switches = []string{"v6only", "reuseport", "nonblock"}

func optionNames() string {
	var names []string
	for _, o := range optionTable {
		names = append(names, o.name)
	}
	return strings.Join(names, ", ")
}

func (o option) fits(a Address) bool {
	switch o.name {
	case "v6only":
		if a.is4() {
			return false
		}
	case "mode", "user", "group":
		if a.abstract() {
			return false
		}
	}
	return slices.Contains(o.networks, a.Network)
}

// kind names what an option is not for.
func (a Address) kind() string {
	switch {
	case a.abstract():
		return "an abstract socket"
	case a.is4():
		return "IPv4"
	case a.Network == "fd":
		return "an inherited descriptor, which is left as it is"
	}
	return a.Network
}

// is4 reports whether only an IPv4 socket will do.
func (a Address) is4() bool {
	ip, err := netip.ParseAddr(a.Host)
	return a.Network == "tcp4" || a.Network == "udp4" || err == nil && ip.Is4() ||
		a.Host == "localhost" && (a.Network == "tcp" || a.Network == "udp")
}

func (a Address) abstract() bool { return strings.HasPrefix(a.Path, "@") }

// String writes the address with its scheme, so that ParseAddress returns the same one again, unless the name was inherited
// and has characters that -bind does not allow.
func (a Address) String() string {
	var s strings.Builder
	if a.Name != "" {
		s.WriteString(a.Name + "=")
	}
	s.WriteString(a.Network + "://")
	switch {
	case a.Network == "fd":
		s.WriteString(cmp.Or(a.FDName, strconv.Itoa(a.FD)))
	case slices.Contains(unixNetworks, a.Network):
		s.WriteString(a.Path)
	default:
		s.WriteString(net.JoinHostPort(a.Host, strconv.Itoa(a.Port)))
	}
	separator := "?"
	for _, o := range optionTable {
		if value := o.format(a.Options); value != "" {
			s.WriteString(separator + o.name + "=" + value)
			separator = "&"
		}
	}
	return s.String()
}

func parseNumber(value string, most int) (int, error) {
	number, err := strconv.ParseUint(value, 10, 32)
	if err != nil || number < 1 || number > uint64(most) {
		return 0, fmt.Errorf("must be a number from 1 to %d", most)
	}
	return int(number), nil
}

func formatNumber(number int) string {
	if number == 0 {
		return ""
	}
	return strconv.Itoa(number)
}

func parseBool(value string) (bool, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New("must be 1 or 0")
	}
	return on, nil
}

func formatBool(on bool) string {
	if on {
		return "1"
	}
	return ""
}

func parseSwitch(value string) (Switch, error) {
	on, err := parseBool(value)
	if on {
		return On, err
	}
	return Off, err
}

func formatSwitch(s Switch) string { return [...]string{Default: "", Off: "0", On: "1"}[s] }

func parseOwner(value string) (string, error) {
	if value == "" {
		return "", errors.New("must be a name or a number")
	}
	return value, nil
}
