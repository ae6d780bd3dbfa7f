package launch

import (
	"slices"
	"strconv"
	"strings"

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

// environ returns exactly what generation n gets: crank's own environment less what is crank's,
// then the changes of the command, then what crank says. No variable is there twice. A check and a probe, whose at
// is nil, get no sockets and cannot say READY.
func (l *Launcher) environ(n int, changes []string, at *notifyAt) []string {
	env := slices.DeleteFunc(slices.Clone(l.cfg.Environ), func(entry string) bool {
		return l.isCranks(supervisor.EnvKey(entry))
	})
	for _, change := range changes {
		env = set(env, change)
	}
	own := []string{"CRANK_NAME=" + l.cfg.Name, "CRANK_GENERATION=" + strconv.Itoa(n)}
	if at != nil {
		own = append(own, "NOTIFY_FD="+strconv.Itoa(at.fd), "NOTIFY_SOCKET="+at.address)
	}
	if l.cfg.Ctl != "" {
		own = append(own, "CRANK_CTL="+l.cfg.Ctl)
	}
	if held := l.sockets.Sockets(); at != nil && len(held) > 0 {
		own = append(own, "LISTEN_FDS="+strconv.Itoa(len(held)), "LISTEN_FDNAMES="+names(held))
	}
	for _, entry := range own {
		env = set(env, entry)
	}
	return env
}

func (l *Launcher) isCranks(key string) bool {
	return slices.Contains(l.cfg.Settings, key) || slices.Contains(removed, key)
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

// lookup returns the value of a variable.
func lookup(env []string, key string) string {
	for _, entry := range env {
		if k, v, ok := strings.Cut(entry, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// names returns the value of LISTEN_FDNAMES (sd_listen_fds(3)).
func names(held []*sockets.Socket) string {
	var all []string
	for _, s := range held {
		all = append(all, s.Name())
	}
	return strings.Join(all, ":")
}
