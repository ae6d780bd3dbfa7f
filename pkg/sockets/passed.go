package sockets

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// Passed describes the descriptors that a service manager passes to this process, as sd_listen_fds(3) reads them: numbered from 3,
// each with a name. The zero value has none.
type Passed struct {
	names   []string // of the descriptors 3, 4, ...; DefaultName if there is no other
	problem string   // why names or descriptors are missing; empty: they are not
	invalid bool     // LISTEN_FDS is invalid, so names and descriptors are missing
	lost    bool     // names are given, but cannot be used
}

const (
	firstPassed = 3       // SD_LISTEN_FDS_START
	maxPassed   = 1 << 16 // more is a mistake: RLIMIT_NOFILE is smaller
	maxName     = 255     // FDNAME_MAX of systemd
	maxListed   = 8
)

// ReadPassed reads LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID and LISTEN_PIDFDID. Descriptors meant for another process do not count.
func ReadPassed(getenv func(string) string) Passed {
	count, names := getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES")
	if count == "" {
		return Passed{problem: "LISTEN_FDS is not set"}
	}
	p := Passed{lost: names != "", problem: notForUs(getenv("LISTEN_PID"), getenv("LISTEN_PIDFDID"))}
	if p.problem != "" {
		return p
	}
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil || n > maxPassed {
		p.problem, p.invalid = fmt.Sprintf("LISTEN_FDS is %q, not a number of descriptors", count), true
		return p
	}
	p.names = slices.Repeat([]string{DefaultName}, int(n))
	if p.problem = p.readNames(names); p.problem == "" {
		p.lost = false
	}
	return p
}

// notForUs returns why the descriptors are not for this process; empty: they are.
func notForUs(pid, pidfdID string) string {
	switch self := os.Getpid(); {
	case pid == "":
		return "LISTEN_PID is not set"
	case pid != strconv.Itoa(self):
		return fmt.Sprintf("LISTEN_PID is %s, and crank is process %d", pid, self)
	case pidfdID == "":
		return ""
	}
	// Since systemd 259: unlike a pid, it is never used again.
	if id, err := linux.PidfdID(os.Getpid()); err == nil && pidfdID != strconv.FormatUint(id, 10) {
		return fmt.Sprintf("LISTEN_PIDFDID is %s, and crank's is %d", pidfdID, id)
	}
	return ""
}

// readNames sets the names, and returns what is wrong with them.
func (p Passed) readNames(text string) (problem string) {
	if text == "" {
		return ""
	}
	names := strings.Split(text, ":")
	if len(names) != len(p.names) {
		return fmt.Sprintf("LISTEN_FDNAMES has %d names for %d descriptors", len(names), len(p.names))
	}
	for _, name := range names {
		if !validPassedName(name) {
			return fmt.Sprintf("a name in LISTEN_FDNAMES is not valid: %q", name)
		}
	}
	for i, name := range names {
		if name != "" {
			p.names[i] = name
		}
	}
	return ""
}

// validPassedName reports whether systemd allows a name (fdname_is_valid in src/basic/fd-util.c): printable ASCII. That is more than
// -bind allows, since the default is the name of the socket unit, such as app@1.socket.
func validPassedName(name string) bool {
	return len(name) <= maxName && strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' }) < 0
}

// Resolve returns the addresses with each fd://NAME replaced by the descriptors of that name, in order, and each fd://N that has
// no name given the one it was passed with.
func (p Passed) Resolve(addresses []Address) ([]Address, error) {
	var resolved []Address
	for _, a := range addresses {
		fds := []int{a.FD}
		if a.FDName != "" {
			if fds = p.named(a.FDName); fds == nil {
				return nil, fmt.Errorf("cannot use %s: %s", a, p.noSuchName())
			}
		}
		for _, fd := range fds {
			one := a
			one.FD, one.FDName = fd, ""
			if i := fd - firstPassed; a.Network == "fd" && a.Name == "" && i >= 0 && i < len(p.names) && p.names[i] != DefaultName {
				one.Name = p.names[i]
			}
			resolved = append(resolved, one)
		}
	}
	return resolved, nil
}

func (p Passed) named(name string) (fds []int) {
	for i, n := range p.names {
		if n == name {
			fds = append(fds, firstPassed+i)
		}
	}
	return fds
}

// noSuchName returns why fd://NAME cannot be resolved.
func (p Passed) noSuchName() string {
	if p.problem != "" {
		return p.problem + ": use fd://N with the number of the descriptor"
	}
	var names []string
	seen := map[string]bool{}
	for _, name := range p.names {
		if !seen[name] {
			names = append(names, name)
		}
		seen[name] = true
	}
	return "no inherited descriptor has this name: use one of " + shortList(names, ", ")
}

// Problem returns why resolved addresses lack names, or the app lacks sockets, that were passed; empty: none are missing, or none are needed.
func (p Passed) Problem(resolved []Address) (cause string) {
	if p.invalid || p.lost && slices.ContainsFunc(resolved, func(a Address) bool { return a.Network == "fd" && a.FD >= firstPassed && a.Name == "" }) {
		return p.problem
	}
	return ""
}

// Unused lists the descriptors that no resolved address uses; empty: all are used.
func (p Passed) Unused(resolved []Address) string {
	used := map[int]bool{}
	for _, a := range resolved {
		used[a.FD] = true // 0 for those that are not inherited
	}
	var unused []string
	for i, name := range p.names {
		if a := (Address{Name: name, Network: "fd", FD: firstPassed + i}); !used[a.FD] {
			if name == DefaultName {
				a.Name = ""
			}
			unused = append(unused, a.String())
		}
	}
	return shortList(unused, " ")
}

func shortList(all []string, separator string) string {
	if more := len(all) - maxListed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxListed], separator), more)
	}
	return strings.Join(all, separator)
}

// inherit duplicates a descriptor that the parent passed. Everything about the socket stays as it is.
func inherit(a Address, lowest int) (*Socket, error) {
	if err := usable(a.FD); err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", a, err)
	}
	fd, err := linux.DuplicateFrom(a.FD, lowest)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", a, err)
	}
	s := &Socket{address: a, fd: fd}
	// The parent's descriptor would otherwise reach the app in addition to the one that is passed on.
	// The three standard ones are handled when the app is started.
	if a.FD > 2 {
		err = linux.CloseOnExec(a.FD)
	}
	if err == nil {
		err = s.readName()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot use %s: %w", a, err), s.close())
	}
	s.remember()
	return s, nil
}

var errNotListening = errors.New("the socket does not listen: call listen(2) first, or set Accept=no in the systemd socket unit")

// usable returns why generations cannot share a descriptor: it is closed, not a socket, or a single connection.
func usable(fd int) error {
	kind, err := linux.Option(fd, linux.SocketType)
	switch {
	case errors.Is(err, syscall.EBADF):
		return errors.New("no such descriptor is open: have the parent pass it")
	case errors.Is(err, syscall.ENOTSOCK):
		return errors.New("the descriptor is not a socket")
	case err != nil:
		return err
	}
	if kind != syscall.SOCK_STREAM && kind != syscall.SOCK_SEQPACKET {
		return nil
	}
	if listens, err := linux.Listens(fd); err == nil && !listens {
		return errNotListening
	}
	return nil
}
