package launch

import (
	"slices"
	"strconv"
	"strings"

	"github.com/crankctl/crank/pkg/profile"
	"github.com/crankctl/crank/pkg/sockets"
	"github.com/crankctl/crank/pkg/supervisor"
)

// notifyAt is where the app can speak to crank.
type notifyAt struct {
	fd      int
	address string
}

// removed are the variables that were meant for crank by whoever started it. An app that read them
// would take somebody else's sockets or report to somebody else. Others that begin alike
// (LISTEN_ADDR) are the app's.
var removed = []string{
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES",
	"NOTIFY_SOCKET", "NOTIFY_FD", "WATCHDOG_USEC", "WATCHDOG_PID",
}

// environ returns exactly what a generation gets: crank's own environment less what is crank's,
// then PWD if the child enters a directory, then the changes of the command, then crank's own variables. None occurs twice. The variables of
// the profile are defaults: one that was given is left alone, unless the profile owns it. A check and a probe, whose at is nil, get no sockets
// and cannot say READY.
func (l *Launcher) environ(id supervisor.ID, c supervisor.Command, at *notifyAt) []string {
	env := slices.DeleteFunc(slices.Clone(l.cfg.Environ), func(entry string) bool {
		return l.isCranks(supervisor.EnvKey(entry))
	})
	if dir := l.dir(c); dir != "" {
		env = set(env, "PWD="+dir)
	}
	for _, change := range c.Env {
		env = set(env, change)
	}
	own := []string{"CRANK_NAME=" + l.cfg.Name, "CRANK_GENERATION=" + strconv.Itoa(id.Generation), "CRANK_SLOT=" + strconv.Itoa(id.Slot)}
	if l.cfg.Ctl != "" {
		own = append(own, "CRANK_CTL="+l.cfg.Ctl)
	}
	if at != nil {
		own = append(own, l.forApp(id.Generation, env, *at)...)
	}
	for _, entry := range own {
		env = set(env, entry)
	}
	return env
}

// forApp returns what only the app itself gets: where it can speak to crank, its sockets, and how often it has to
// show that it is alive.
func (l *Launcher) forApp(n int, env []string, at notifyAt) []string {
	own := []string{"NOTIFY_FD=" + strconv.Itoa(at.fd), "NOTIFY_SOCKET=" + at.address}
	held := l.sockets.Sockets()
	if l.listens() {
		own = append(own, "LISTEN_FDS="+strconv.Itoa(len(held)), "LISTEN_FDNAMES="+names(held))
	}
	for _, entry := range l.cfg.Profile.Environ(passed(held), n) {
		if key := supervisor.EnvKey(entry); !has(env, key) {
			own = append(own, entry)
		}
	}
	if l.cfg.Watchdog > 0 {
		own = append(own, "WATCHDOG_USEC="+strconv.FormatInt(l.cfg.Watchdog.Microseconds(), 10))
	}
	return own
}

func (l *Launcher) isCranks(key string) bool {
	return slices.Contains(l.cfg.Settings, key) || slices.Contains(removed, key) || l.cfg.Profile.Owns(key)
}

// listens reports whether the app is told of its sockets as systemd does it.
func (l *Launcher) listens() bool {
	return l.cfg.Profile.Listen && len(l.sockets.Sockets()) > 0
}

// passed returns the sockets as the app has them.
func passed(held []*sockets.Socket) []profile.Socket {
	var all []profile.Socket
	for i, s := range held {
		all = append(all, profile.Socket{FD: 3 + i, Bound: s.Bound(), Host: s.Address().Host})
	}
	return all
}

func has(env []string, key string) bool {
	return slices.ContainsFunc(env, func(entry string) bool { return supervisor.EnvKey(entry) == key })
}

// set makes one change, "K=V" or "K-".
func set(env []string, change string) []string {
	key := supervisor.EnvKey(change)
	env = slices.DeleteFunc(env, func(entry string) bool { return supervisor.EnvKey(entry) == key })
	if strings.Contains(change, "=") {
		env = append(env, change)
	}
	return env
}

// names returns the value of LISTEN_FDNAMES (sd_listen_fds(3)).
func names(held []*sockets.Socket) string {
	var all []string
	for _, s := range held {
		all = append(all, s.Name())
	}
	return strings.Join(all, ":")
}
