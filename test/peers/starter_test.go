package peers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// starterStories follow Server::Starter's t/*.t. {port} and {dir} in options are replaced. Where a story gives no socket there is one
// TCP port, see base.
var starterStories = all(asChild, swapStories, socketStories, endStories)

// all returns stories that all run in one mode.
func all(as mode, lists ...[]story) (stories []story) {
	for _, s := range slices.Concat(lists...) {
		s.as = as
		stories = append(stories, s)
	}
	return stories
}

const refused = "no such option: 125"

var swapStories = []story{
	{
		name: "HUP",
		want: same("the new worker answers, then the old one gets 15", starter),
		run:  serving(nil, swaps),
	},
	{
		name:  "HUP, with USR1 as the stop signal",
		flags: flags{starter: {"--signal-on-hup=USR1"}, crank: {"-stop-signal", "USR1"}},
		want:  same("the new worker answers, then the old one gets 10", starter),
		run:   serving(nil, swaps),
	},
	{
		name:  "HUP, and the old worker takes its time: which generations run",
		flags: flags{starter: {"--status-file={dir}/status"}},
		want:  same("1, then 1 2, then 2", starter),
		run:   serving(nil, generations),
	},
	{
		name: "HUP, and again while the new worker starts",
		want: same("there is a third worker", starter),
		run: serving(nil, func(s *server) (string, error) {
			_, err := s.ask()
			if err := errors.Join(err, s.p.send(syscall.SIGHUP), s.starts(2), s.p.send(syscall.SIGHUP), s.starts(3)); err != nil {
				return "", err
			}
			return "there is a third worker", nil
		}),
	},
	{
		name:  "HUP, and the new worker fails",
		flags: flags{starter: {"--interval=2"}},
		want:  outcomes{crank: "the old one answers; no second attempt", starter: "the old one answers; attempts until one lives"},
		why:   "a failed swap is not retried",
		doc:   docStarter,
		run:   serving(nil, newOneFails),
	},
	{
		name:  "the first worker fails",
		flags: flags{starter: {"--interval=2"}},
		want:  outcomes{crank: "crank ends: 1", starter: "attempts until one lives"},
		why:   "the container's restart policy decides",
		doc:   docStarter,
		run:   firstFails("broken"),
	},
	{
		name:  "the first worker exits with 0 before it is ready",
		flags: flags{starter: {"--interval=2"}},
		want:  outcomes{crank: "crank ends: 1", starter: "attempts until one lives"},
		why:   "the container's restart policy decides",
		doc:   docStarter,
		run:   firstFails("quit"),
	},
	{
		name:  "the worker is killed: stdin of the next one",
		flags: flags{crank: {"-restart", "always"}},
		want:  same("the first one's", starter),
		run:   stdins(killWorker),
	},
	{
		name: "HUP: stdin of the new worker",
		want: outcomes{crank: "/dev/null", starter: "the first one's"},
		why:  "two of them would read from it",
		doc:  docStarter,
		run:  stdins(hup),
	},
	{
		name: "HUP: SERVER_STARTER_GENERATION",
		want: same("1, then 2", starter),
		run:  serving(nil, nextGeneration),
	},
	{
		name:  "the worker is killed",
		flags: flags{crank: {"-restart", "always"}},
		want:  same("another one is started", starter),
		run:   serving(nil, killed),
	},
	{
		name: "the worker is killed, and crank has no -restart",
		want: outcomes{crank: "crank ends: 137", starter: "another one is started"},
		why:  "the container's restart policy decides",
		doc:  docStarter,
		run:  serving(nil, killed),
	},
	{
		name:  "HUP, with a delay of 4 seconds for the old worker",
		flags: flags{starter: {"--kill-old-delay=4"}, crank: {"-settle", "4s"}},
		want:  same("both answer, then the old one gets 15", starter),
		run:   serving(nil, bothAnswer),
	},
	{
		name:  "a restart every second",
		flags: flags{starter: {"--enable-auto-restart", "--auto-restart-interval=1"}, crank: {"-auto-restart-interval", "1"}},
		want:  outcomes{crank: refused, starter: "a new worker answers"},
		why:   "a timer can send HUP, or call crankctl reload",
		doc:   docStarter,
		run:   optional(changes),
	},
	{
		name:  "the restart command (--restart; crankctl reload)",
		flags: flags{starter: {"--pid-file={dir}/pid", "--status-file={dir}/status"}},
		want:  same("the new worker serves when it returns", starter),
		run:   serving(nil, restartCommand),
	},
	{
		name:  "the restart command, and the old worker takes its time",
		flags: flags{starter: {"--pid-file={dir}/pid", "--status-file={dir}/status"}},
		want:  outcomes{crank: "returns before the old one has ended", starter: "returns after the old one has ended"},
		why:   "crankctl wait -idle waits for it",
		doc:   docStarter,
		run:   serving(nil, restartWaits),
	},
}

var socketStories = []story{
	{
		name: "a client comes before the worker serves",
		want: same("is connected, and answered later", starter),
		run:  earlyClient,
	},
	{
		name: "SERVER_STARTER_PORT of two ports and a path",
		flags: flags{
			starter: {"--port=127.0.0.1:{port}", "--port=127.0.0.2:{port}", "--path={dir}/s"},
			crank:   {"-bind", "tcp4://127.0.0.1:{port}", "-bind", "tcp4://127.0.0.2:{port}", "-bind", "unix://{dir}/s"},
		},
		want: same("127.0.0.1:PORT=FD;127.0.0.2:PORT=FD;DIR/s=FD", starter),
		run: serving(nil, func(s *server) (string, error) {
			text := strings.NewReplacer(":"+s.port, ":PORT", s.r.dir, "DIR").Replace(s.variable)
			return regexp.MustCompile(`=\d+`).ReplaceAllString(text, "=FD"), nil
		}),
	},
	{
		name: "SERVER_STARTER_PORT without a socket",
		want: same(`""`, starter),
		run: func(r *run) (string, error) {
			r.bare = true
			return serving(nil, func(s *server) (string, error) { return fmt.Sprintf("%q", s.variable), nil })(r)
		},
	},
	{
		name:  "a UDP socket",
		flags: flags{starter: {"--port=127.0.0.1:u{port}"}, crank: {"-bind", "udp4://127.0.0.1:{port}"}},
		want:  same("127.0.0.1:PORT answers", starter),
		run:   serving(nil, udp),
	},
	{
		name: "a port of 127.0.0.1",
		want: same("127.0.0.2 is refused", starter),
		run: serving(nil, func(s *server) (string, error) {
			if conn, err := net.Dial("tcp", "127.0.0.2:"+s.port); err == nil {
				conn.Close()
				return "127.0.0.2 is connected", nil
			}
			_, err := s.ask()
			return "127.0.0.2 is refused", err
		}),
	},
	{
		name:  "a socket at descriptor 0",
		flags: flags{starter: {"--port=127.0.0.1:{port}=0"}, crank: {"-bind", "tcp4://127.0.0.1:{port}", "-stdin-socket"}},
		want:  same("the worker serves there", starter),
		run: serving([]string{"-fd", "0"}, func(s *server) (string, error) {
			_, err := s.ask()
			return "the worker serves there", err
		}),
	},
	{
		name:  "a socket at descriptor 5",
		flags: flags{starter: {"--port=127.0.0.1:{port}=5"}},
		want:  outcomes{crank: "is at 3", starter: "is at 5"},
		why:   "sockets are passed from 3 on, and a variable says where",
		doc:   docStarter,
		run: serving(nil, func(s *server) (string, error) {
			return "is at " + s.variable[strings.LastIndex(s.variable, "=")+1:], nil
		}),
	},
	{
		name:  "a queue of 7",
		flags: flags{starter: {"--port=127.0.0.1:{port}", "--backlog=7"}, crank: {"-bind", "tcp4://127.0.0.1:{port}?backlog=7"}},
		want:  same("7", starter),
		run:   serving(nil, func(s *server) (string, error) { return s.backlog, nil }),
	},
	{
		name:  "a unix socket",
		flags: unixSocket(""),
		want:  same("answers; at the end its path is gone", starter),
		run:   serving(nil, unixEnds),
	},
	{
		name:  "a unix socket's mode, with umask 022",
		flags: unixSocket(""),
		want:  outcomes{crank: "0755", starter: "0777"},
		why:   "?mode=0777 says so",
		doc:   docAddresses,
		run:   serving(nil, unixMode),
	},
	{
		name:  "a unix socket of mode 0777",
		flags: unixSocket("?mode=0777"),
		want:  same("0777", starter),
		run:   serving(nil, unixMode),
	},
	{
		name:  "a unix socket whose owner is gone is at that path",
		flags: unixSocket(""),
		want:  same("replaced", starter),
		run: inTheWay(func(path string) (io.Closer, error) {
			syscall.ForkLock.RLock() // a process that is forked now would listen too, until its exec
			defer syscall.ForkLock.RUnlock()
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				return nil, err
			}
			l.SetUnlinkOnClose(false)
			return l, l.Close()
		}),
	},
	{
		name:  "a unix socket where somebody listens is at that path",
		flags: unixSocket(""),
		want:  outcomes{crank: "kept; crank ends: 125", starter: "replaced"},
		why:   "a path is taken over only if nobody answers",
		doc:   docAddresses,
		run: inTheWay(func(path string) (io.Closer, error) {
			return net.Listen("unix", path)
		}),
	},
	{
		name:  "a file is at that path",
		flags: unixSocket(""),
		want:  outcomes{crank: "kept; crank ends: 125", starter: "replaced"},
		why:   "crank removes only files that it has created",
		doc:   docAddresses,
		run: inTheWay(func(path string) (io.Closer, error) {
			return io.NopCloser(nil), os.WriteFile(path, []byte("precious"), 0o644)
		}),
	},
}

var endStories = []story{
	{
		name: "another one is started with the same socket",
		want: outcomes{crank: "it ends: 125; the first one answers", starter: "it ends: 98; the first one answers"},
		why:  "98 could be the app's",
		doc:  docCodes,
		run:  serving(nil, another),
	},
	{
		name: "TERM, and the worker takes its time",
		want: same("it gets 15, and is waited for: 0", starter),
		run:  serving(nil, ends(syscall.SIGTERM)),
	},
	{
		name:  "TERM, with QUIT as the stop signal",
		flags: flags{starter: {"--signal-on-term=QUIT"}, crank: {"-rewrite", "TERM:QUIT"}},
		want:  same("it gets 3, and is waited for: 0", starter),
		run:   serving(nil, ends(syscall.SIGTERM)),
	},
	{
		name: "TERM, and the worker exits with 3",
		want: outcomes{crank: "it gets 15, and is waited for: 3", starter: "it gets 15, and is waited for: 0"},
		why:  "crank's exit code is the app's",
		doc:  docCodes,
		run:  serving([]string{"-exit", "3"}, ends(syscall.SIGTERM)),
	},
	{
		name: "INT",
		want: outcomes{crank: "it gets 2, and is waited for: 0", starter: "it gets 15, and is waited for: 0"},
		why:  "the app gets the signal that crank got, or -stop-signal",
		doc:  docInit,
		run:  serving(nil, ends(syscall.SIGINT)),
	},
	{
		name: "TERM twice, and the worker stays",
		want: outcomes{crank: "it gets both", starter: "it gets one"},
		why:  "some apps stop faster then",
		doc:  docStarter,
		run:  serving([]string{"-stay"}, twice),
	},
	{
		name:  "output into a file (--log-file)",
		flags: flags{starter: {"--log-file={dir}/log"}, crank: {"-log-file", "{dir}/log"}},
		want:  outcomes{crank: refused, starter: "the worker's output is there"},
		why:   "output goes to the container's log",
		doc:   docStarter,
		run: optional(func(s *server) (string, error) {
			return "the worker's output is there", eventually(func() error {
				if text, err := os.ReadFile(filepath.Join(s.r.dir, "log")); !strings.Contains(string(text), "ready") {
					return fmt.Errorf("the file has %q, %w", text, err)
				}
				return nil
			})
		}),
	},
	{
		name:  "it should run in the background (--daemonize)",
		flags: flags{starter: {"--log-file={dir}/log", "--daemonize"}, crank: {"-daemonize"}},
		want:  outcomes{crank: refused, starter: "returns immediately: 0"},
		why:   "a container ends with its first process",
		doc:   docStarter,
		run: optional(func(s *server) (string, error) {
			code, err := s.p.end()
			return "returns immediately: " + code, err
		}),
	},
	{
		name:  "the pid in a file (--pid-file)",
		flags: flags{starter: {"--pid-file={dir}/pid"}, crank: {"-pid-file", "{dir}/pid"}},
		want:  outcomes{crank: refused, starter: "written, and removed at the end"},
		why:   "crankctl finds crank by its control socket",
		doc:   docStarter,
		run:   optional(pidFile),
	},
}

func unixSocket(options string) flags {
	return flags{starter: {"--path={dir}/s"}, crank: {"-bind", "unix://{dir}/s" + options}}
}
