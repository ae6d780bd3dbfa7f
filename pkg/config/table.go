package config

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/crankctl/crank/pkg/profile"
)

// Setting is one row of the table.
type Setting struct {
	Flag string // without the dash
	Var  string // "" where there is only a flag
	Arg  string // what the flag takes, "" for a switch
	// Default is the text of the default. Where it depends on something else it is "", and Usually
	// says what it is in words.
	Default, Usually string
	Doc              string // a line that begins with a small letter and has no period
	Group            string
	Secret           bool // the value is never shown

	field  func(*Config) any  // a *string or a flag.Value; nil for -help
	accept func(string) error // of what was given, beyond what the type refuses
}

// The groups, in the order of -help.
const (
	groupSockets = "Sockets"
	groupStart   = "Starting and readiness"
	groupStop    = "Stopping and signals"
	groupPlace   = "Names, files and control"
	groupOutput  = "Output and logs"
	groupSelf    = "Crank itself"
)

var groups = []string{groupSockets, groupStart, groupStop, groupPlace, groupOutput, groupSelf}

// settings is the table. Its order within a group is that of -help.
var settings = []Setting{
	{Flag: "bind", Var: "CRANK_BIND", Arg: "[NAME=]URI[?OPTIONS]", Group: groupSockets, Usually: "none",
		Doc:   "a socket to hold and pass on, from descriptor 3; fd://N or fd://NAME is an inherited one; repeatable, in order; the variable is a comma list",
		field: func(c *Config) any { return &c.Bind }},
	{Flag: "stdin-socket", Var: "CRANK_STDIN_SOCKET", Group: groupSockets, Default: "false",
		Doc:   "the first socket is also descriptor 0, as Java's inheritedChannel expects it",
		field: func(c *Config) any { return &c.StdinSocket }},
	{Flag: "listen-pid", Var: "CRANK_LISTEN_PID", Group: groupSockets, Default: "true",
		Doc:   "set LISTEN_PID; false where a wrapper between crank and the app has a pid of its own",
		field: func(c *Config) any { return &c.ListenPID }},
	{Flag: "profile", Var: "CRANK_PROFILE", Arg: "NAME", Group: groupSockets, Default: profile.Default,
		Doc:    "presets for servers that take their sockets in another way, see Profiles; help prints them",
		accept: oneOf(append(profile.Names(), ProfileHelp)...),
		field:  func(c *Config) any { return &c.Profile }},

	{Flag: "start", Var: "CRANK_START_TIMEOUT", Arg: "DURATION", Group: groupStart, Default: "30s",
		Doc:    "a candidate that is not ready in this time is stopped, and the swap has failed",
		accept: positive,
		field:  func(c *Config) any { return &c.StartTimeout }},
	{Flag: "settle", Var: "CRANK_SETTLE", Arg: "DURATION", Group: groupStart, Default: "1s",
		Doc:   "after READY both generations serve for this long; only where there is a current one to protect",
		field: func(c *Config) any { return &c.Settle }},
	{Flag: "ready", Var: "CRANK_READY", Arg: "HOW", Group: groupStart, Usually: "notify with a -bind, else none",
		Doc: "what makes a candidate ready: none (its exec succeeded), notify (it says READY=1), a duration (alive for that " +
			"long), exec:COMMAND (exits 0), http://HOST:PORT/PATH (answers 2xx or 3xx) or tcp://HOST:PORT; the address must be " +
			"the candidate's own: {slot} (a small number that is reused), {generation} and {pid} are replaced",
		accept: readiness,
		field:  func(c *Config) any { return &c.Ready }},
	{Flag: "ready-interval", Var: "CRANK_READY_INTERVAL", Arg: "DURATION", Group: groupStart, Default: "1s",
		Doc:    "a probe of -ready begins so long after the last one began",
		accept: positive,
		field:  func(c *Config) any { return &c.ReadyInterval }},
	{Flag: "ready-timeout", Var: "CRANK_READY_TIMEOUT", Arg: "DURATION", Group: groupStart, Default: "1s",
		Doc:    "how long one probe of -ready may take",
		accept: positive,
		field:  func(c *Config) any { return &c.ReadyTimeout }},
	{Flag: "check", Var: "CRANK_CHECK", Arg: "COMMAND", Group: groupStart, Usually: "none", Secret: true,
		Doc:    "must exit 0 before a candidate is started, within -start",
		accept: command,
		field:  func(c *Config) any { return &c.Check }},
	{Flag: "max-extend", Var: "CRANK_MAX_EXTEND", Arg: "DURATION", Group: groupStart, Default: "10m",
		Doc:   "the most that the app's EXTEND_TIMEOUT_USEC can add to -start, and to -stop; 0: nothing",
		field: func(c *Config) any { return &c.MaxExtend }},
	{Flag: "watchdog", Var: "CRANK_WATCHDOG", Arg: "ACTION", Group: groupStart, Default: "report",
		Doc: "what a missed WATCHDOG=1 leads to: report (not ready until the next one), swap (a new generation is started as " +
			"well) or exit (crank stops, with an exit code that is not 0)",
		accept: oneOf("report", "swap", "exit"),
		field:  func(c *Config) any { return &c.Watchdog }},
	{Flag: "watchdog-timeout", Var: "CRANK_WATCHDOG_TIMEOUT", Arg: "DURATION", Group: groupStart, Default: "0s",
		Doc: "from READY on the app must say WATCHDOG=1 in every such period; it is told by WATCHDOG_USEC, and can say " +
			"another period itself; 0: off",
		field: func(c *Config) any { return &c.WatchdogTimeout }},
	{Flag: "memory-check", Var: "CRANK_MEMORY_CHECK", Arg: "ACTION", Group: groupStart, Default: "warn",
		Doc:    "where the cgroup has no room for a second generation as big as the current one: warn, refuse the swap, or off",
		accept: oneOf("warn", "refuse", "off"),
		field:  func(c *Config) any { return &c.MemoryCheck }},

	{Flag: "stop", Var: "CRANK_STOP_TIMEOUT", Arg: "DURATION", Group: groupStop, Default: "30s",
		Doc:   "a generation that is not gone this long after its stop signal is killed",
		field: func(c *Config) any { return &c.StopTimeout }},
	{Flag: "stop-signal", Var: "CRANK_STOP_SIGNAL", Arg: "SIGNAL", Group: groupStop, Default: "same",
		Doc:   "what asks the app to drain; same: the signal that stopped crank, TERM for swaps",
		field: func(c *Config) any { return &c.StopSignal }},
	{Flag: "stop-on", Var: "CRANK_STOP_ON", Arg: "SIGNAL,...", Group: groupStop, Default: "TERM,INT,QUIT",
		Doc: "the signals that stop crank, applied after -rewrite; all others are forwarded to the app without a deadline; none: " +
			"crank stops only when the app exits",
		field: func(c *Config) any { return &c.StopOn }},
	{Flag: "drain-delay", Var: "CRANK_DRAIN_DELAY", Arg: "DURATION", Group: groupStop, Default: "0s",
		Doc:   "once crank is asked to stop: not ready but still serving for this long, then the app is stopped",
		field: func(c *Config) any { return &c.DrainDelay }},
	{Flag: "max-draining", Var: "CRANK_MAX_DRAINING", Arg: "N", Group: groupStop, Default: "8",
		Doc:   "leaving generations at a time; with more, HUP waits and requests are refused; 0: no limit",
		field: func(c *Config) any { return &c.MaxDraining }},
	{Flag: "group", Var: "CRANK_GROUP", Group: groupStop, Default: "false",
		Doc:   "signals go to the app's whole process group, not only to its main process",
		field: func(c *Config) any { return &c.Group }},
	{Flag: "rewrite", Var: "CRANK_REWRITE", Arg: "IN:OUT,...", Group: groupStop, Usually: "none",
		Doc:   "a signal to crank counts as another one; OUT 0 drops it: USR1:TERM,TTIN:0",
		field: func(c *Config) any { return &c.Rewrite }},
	{Flag: "hup", Var: "CRANK_HUP", Arg: "ACTION", Group: groupStop, Usually: "swap with a -bind, else forward",
		Doc:    "what HUP does: swap (start the command anew), forward (to the app) or ignore",
		accept: oneOf("swap", "forward", "ignore"),
		field:  func(c *Config) any { return &c.HUP }},
	{Flag: "restart", Var: "CRANK_RESTART", Arg: "WHEN", Group: groupStop, Default: "never",
		Doc: "restart the app when it exits by itself after it was ready (-ready): never, on-failure or always; if the first start " +
			"fails, crank exits with its exit code, with or without a -bind, so that Docker or Kubernetes sees it and backs off",
		accept: oneOf("never", "on-failure", "always"),
		field:  func(c *Config) any { return &c.Restart }},
	{Flag: "ok-codes", Var: "CRANK_OK_CODES", Arg: "N,N-M,...", Group: groupStop, Usually: "none",
		Doc:   "exit codes of the app that crank reports as 0: 143 where a TERM is a success",
		field: func(c *Config) any { return &c.OKCodes }},

	{Flag: "name", Var: "CRANK_NAME", Arg: "NAME", Group: groupPlace, Default: "app",
		Doc:    "names this instance: its files, its log lines, and in the app CRANK_NAME",
		accept: instanceName,
		field:  func(c *Config) any { return &c.Name }},
	{Flag: "prefix", Var: "CRANK_PREFIX", Arg: "DIR", Group: groupPlace, Usually: "the first usable runtime directory",
		Doc:    "the runtime directory, for the control socket and the saved command",
		accept: notEmpty("a directory"),
		field:  func(c *Config) any { return &c.Prefix }},
	{Flag: "conf", Var: "CRANK_CONF", Arg: "PATH", Group: groupPlace, Usually: "PREFIX/NAME.conf",
		Doc:    "the file for the command that last became current, or off; a file that crank did not write is an error",
		accept: notEmpty("a path or off"),
		field:  func(c *Config) any { return &c.Conf }},
	{Flag: "ctl", Var: "CRANK_CTL", Arg: "PATH", Group: groupPlace, Usually: "PREFIX/NAME.ctl",
		Doc:    "the control socket: a path, or tcp:// with a loopback address and CRANK_CTL_TOKEN_FILE; off",
		accept: controlAddress,
		field:  func(c *Config) any { return &c.Ctl }},
	{Flag: "ctl-readonly", Var: "CRANK_CTL_READONLY", Group: groupPlace, Default: "false",
		Doc:   "the control socket only answers questions; updates come by HUP",
		field: func(c *Config) any { return &c.CtlReadonly }},
	{Flag: "cwd", Var: "CRANK_CWD", Arg: "DIR", Group: groupPlace, Usually: "where crank was started, by its name in $PWD",
		Doc:    "the app's working directory; each generation enters it by name, so a symlink can be repointed to a new release",
		accept: notEmpty("a directory"),
		field:  func(c *Config) any { return &c.Cwd }},
	{Flag: "http", Var: "CRANK_HTTP", Arg: "URI", Group: groupPlace, Default: "off",
		Doc:    "where probes (/livez, /readyz, /startupz) and /metrics are served: :9090, a path, or off",
		accept: notEmpty("a net-uri or off"),
		field:  func(c *Config) any { return &c.HTTP }},
	{Flag: "notify-parent", Var: "CRANK_NOTIFY_PARENT", Group: groupPlace, Default: "false",
		Usually: "true where NOTIFY_SOCKET is set and crank is not PID 1",
		Doc:     "report to the service manager above crank, such as systemd: READY, RELOADING, STOPPING, STATUS, EXTEND_TIMEOUT_USEC, WATCHDOG",
		field:   func(c *Config) any { return &c.NotifyParent }},
	{Flag: "no-new-privs", Var: "CRANK_NO_NEW_PRIVS", Group: groupPlace, Default: "false",
		Doc:   "the app cannot gain privileges by exec, see PR_SET_NO_NEW_PRIVS in prctl(2)",
		field: func(c *Config) any { return &c.NoNewPrivs }},
	{Flag: "termination-log", Var: "CRANK_TERMINATION_LOG", Arg: "PATH", Group: groupPlace,
		Usually: "/dev/termination-log where it exists",
		Doc:     "a file for one line of reason and the end of stderr, at most 4 KiB, written when crank ends; off",
		accept:  notEmpty("a path or off"),
		field:   func(c *Config) any { return &c.TerminationLog }},

	{Flag: "output", Var: "CRANK_OUTPUT", Arg: "MODE", Group: groupOutput, Default: "auto",
		Doc: "auto: with a -bind and no terminal, stderr is copied byte for byte, in whole lines, and its end is kept " +
			"to explain a failure; inherit: stdout and stderr untouched; tag: each line names the generation that wrote it",
		accept: oneOf("auto", "inherit", "tag"),
		field:  func(c *Config) any { return &c.Output }},
	{Flag: "redact", Var: "CRANK_REDACT", Arg: "REGEXP", Group: groupOutput, Usually: "none", Secret: true,
		Doc:    "an argument that matches is shown as *** wherever crank shows a command (-redact '^--password=')",
		accept: regularExpression,
		field:  func(c *Config) any { return &c.Redact }},
	{Flag: "log-format", Var: "CRANK_LOG_FORMAT", Arg: "FORMAT", Group: groupOutput, Default: "auto",
		Doc:    "crank's own log, on stderr: text, json, or auto (text on a terminal, else json)",
		accept: oneOf("auto", "text", "json"),
		field:  func(c *Config) any { return &c.LogFormat }},
	{Flag: "v", Var: "CRANK_LOG_LEVEL", Arg: "N", Group: groupOutput, Default: "0",
		Doc:   "how much crank's own log says: 0 is what happens, more is how",
		field: func(c *Config) any { return &c.LogLevel }},

	{Flag: "help", Group: groupSelf, Doc: "print this and exit"},
	{Flag: "version", Group: groupSelf, Doc: "print the version and exit",
		field: func(c *Config) any { return (*Switch)(&c.Version) }},
	{Flag: "install", Arg: "DIR", Group: groupSelf, Doc: "copy crank, crankctl and crankx there and exit",
		accept: notEmpty("a directory"),
		field:  func(c *Config) any { return &c.Install }},
}

// value is the field of c as the flag package wants it.
func (s *Setting) value(c *Config) flag.Value {
	if s.field == nil {
		return new(text)
	}
	switch field := s.field(c).(type) {
	case *string:
		return (*text)(field)
	default:
		return field.(flag.Value)
	}
}

// What accept functions return says what is wanted; the caller names the setting and the value.

func oneOf(values ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(values, value) {
			return errors.New("want " + list(values, "or"))
		}
		return nil
	}
}

func notEmpty(what string) func(string) error {
	return func(value string) error {
		if value == "" {
			return errors.New("want " + what)
		}
		return nil
	}
}

func controlAddress(value string) error {
	if value == "" || strings.Contains(value, ":") && !strings.Contains(value, "/") {
		return errors.New("want a path, tcp://127.0.0.1:PORT or off")
	}
	return nil
}

func positive(value string) error {
	if value == "0s" {
		return errors.New("want more than 0")
	}
	return nil
}

// instanceName uses no regular expression: to compile one takes longer than all of the configuration.
func instanceName(value string) error {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
	if value == "" || len(value) > 64 || strings.Trim(value, allowed) != "" {
		return errors.New("want 1 to 64 letters, digits, dots, dashes and underscores")
	}
	return nil
}

// regularExpression does not quote what may hold a secret.
func regularExpression(value string) error {
	_, err := regexp.Compile(value)
	if wrong, ok := errors.AsType[*syntax.Error](err); ok {
		return fmt.Errorf("want a regular expression: %s", wrong.Code)
	}
	return err
}
