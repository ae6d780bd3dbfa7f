package config

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain takes away what the environment of the tests may say to a crank.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix+"_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func load(t *testing.T, variables map[string]string, args ...string) Config {
	t.Helper()
	for name, value := range variables {
		t.Setenv(name, value)
	}
	c, err := Load(args)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	want := Config{
		ListenPID: true, Profile: "systemd", Preset: preset(t, "systemd"),
		StartTimeout: Seconds(30 * time.Second), Settle: Seconds(time.Second), Ready: "none",
		ReadyInterval: Seconds(time.Second), ReadyTimeout: Seconds(time.Second),
		MaxExtend: Seconds(10 * time.Minute), Watchdog: "report", MemoryCheck: "warn",
		StopTimeout: Seconds(30 * time.Second), StopOn: StopOn{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}, MaxDraining: 8, HUP: "forward", Restart: "never",
		Name: "app", HTTP: "off", Output: "auto", LogFormat: "auto",
		Explicit: map[string]Source{},
	}
	if diff := cmp.Diff(want, load(t, nil)); diff != "" {
		t.Error(diff)
	}
}

// TestIdle: each setting, by flag or by variable, identifies the instance, unless it is about the output.
func TestIdle(t *testing.T) {
	if !load(t, nil).Idle() || load(t, nil, "app").Idle() || load(t, nil, "--", "app").Idle() {
		t.Error("without settings, crank must be idle exactly when there is no command")
	}
	if !load(t, map[string]string{"CRANK_NAME": "", "CRANK_VERSION": "3", "CRANK_SERVICE_PORT": "80", "CRANK_COLOUR": "blue"}).Idle() {
		t.Error("empty variables counted as settings")
	}
	group := map[string]string{}
	for _, s := range settings {
		group[s.Flag] = s.Group
	}
	for _, e := range everySetting {
		if e.flag == "stdin-socket" {
			continue // it needs a -bind
		}
		want := group[e.flag] == groupOutput
		if got := load(t, nil, "-"+e.flag+"="+e.value).Idle(); got != want {
			t.Errorf("-%s: idle %v, want %v", e.flag, got, want)
		}
		t.Run(e.flag, func(t *testing.T) {
			if got := load(t, map[string]string{variableOf(e.flag): e.value}).Idle(); got != want {
				t.Errorf("%s: idle %v, want %v", variableOf(e.flag), got, want)
			}
		})
	}
}

func variableOf(flag string) string {
	i := slices.IndexFunc(settings, func(s Setting) bool { return s.Flag == flag })
	return settings[i].Var
}

// everySetting is each setting in every way: what to say, and what is then in the Config.
var everySetting = []struct {
	flag, value string
	want        func(Config) (got, want any)
}{
	{"bind", ":8080", func(c Config) (any, any) { return c.Bind, Binds{":8080"} }},
	{"stdin-socket", "true", func(c Config) (any, any) { return c.StdinSocket, Switch(true) }},
	{"listen-pid", "false", func(c Config) (any, any) { return c.ListenPID, Switch(false) }},
	{"profile", "none", func(c Config) (any, any) { return []any{c.Profile, c.Preset.Name}, []any{"none", "none"} }},
	{"start", "10", func(c Config) (any, any) { return c.StartTimeout, Seconds(10 * time.Second) }},
	{"settle", "0", func(c Config) (any, any) { return c.Settle, Seconds(0) }},
	{"ready", "notify", func(c Config) (any, any) { return c.Ready, "notify" }},
	{"max-extend", "0", func(c Config) (any, any) { return c.MaxExtend, Seconds(0) }},
	{"watchdog", "exit", func(c Config) (any, any) { return c.Watchdog, "exit" }},
	{"watchdog-timeout", "20", func(c Config) (any, any) { return c.WatchdogTimeout, Seconds(20 * time.Second) }},
	{"ready-interval", "2", func(c Config) (any, any) { return c.ReadyInterval, Seconds(2 * time.Second) }},
	{"ready-timeout", "300ms", func(c Config) (any, any) { return c.ReadyTimeout, Seconds(300 * time.Millisecond) }},
	{"redact", "^--password=", func(c Config) (any, any) { return c.Redact, "^--password=" }},
	{"check", "nginx -t", func(c Config) (any, any) { return c.Check, "nginx -t" }},
	{"memory-check", "refuse", func(c Config) (any, any) { return c.MemoryCheck, "refuse" }},
	{"stop", "1m30s", func(c Config) (any, any) { return c.StopTimeout, Seconds(90 * time.Second) }},
	{"stop-signal", "QUIT", func(c Config) (any, any) { return c.StopSignal, StopSignal(syscall.SIGQUIT) }},
	{"stop-on", "TERM,SIGINT,rtmin+3,15", func(c Config) (any, any) { return c.StopOn, StopOn{syscall.SIGTERM, syscall.SIGINT, 37} }},
	{"drain-delay", "0.5", func(c Config) (any, any) { return c.DrainDelay, Seconds(500 * time.Millisecond) }},
	{"max-draining", "0", func(c Config) (any, any) { return c.MaxDraining, Count(0) }},
	{"group", "true", func(c Config) (any, any) { return c.Group, Switch(true) }},
	{"rewrite", "USR1:TERM", func(c Config) (any, any) { return c.Rewrite, Rewrites{syscall.SIGUSR1: syscall.SIGTERM} }},
	{"hup", "ignore", func(c Config) (any, any) { return c.HUP, "ignore" }},
	{"restart", "on-failure", func(c Config) (any, any) { return c.Restart, "on-failure" }},
	{"ok-codes", "143", func(c Config) (any, any) { return c.OKCodes, Codes{143} }},
	{"name", "web-1.a_B", func(c Config) (any, any) { return c.Name, "web-1.a_B" }},
	{"prefix", "./", func(c Config) (any, any) { return c.Prefix, "./" }},
	{"conf", "off", func(c Config) (any, any) { return c.Conf, "off" }},
	{"ctl", "tcp://127.0.0.1:9000", func(c Config) (any, any) { return c.Ctl, "tcp://127.0.0.1:9000" }},
	{"ctl-readonly", "1", func(c Config) (any, any) { return c.CtlReadonly, Switch(true) }},
	{"cwd", "releases/current", func(c Config) (any, any) { return c.Cwd, "releases/current" }},
	{"http", ":9090", func(c Config) (any, any) { return c.HTTP, ":9090" }},
	{"notify-parent", "true", func(c Config) (any, any) { return c.NotifyParent, Switch(true) }},
	{"termination-log", "/x", func(c Config) (any, any) { return c.TerminationLog, "/x" }},
	{"no-new-privs", "true", func(c Config) (any, any) { return c.NoNewPrivs, Switch(true) }},
	{"output", "tag", func(c Config) (any, any) { return c.Output, "tag" }},
	{"log-format", "json", func(c Config) (any, any) { return c.LogFormat, "json" }},
	{"v", "2", func(c Config) (any, any) { return c.LogLevel, Count(2) }},
}

func setting(t *testing.T, flag string) Setting {
	t.Helper()
	i := slices.IndexFunc(settings, func(s Setting) bool { return s.Flag == flag })
	if i < 0 {
		t.Fatalf("no setting %q", flag)
	}
	return settings[i]
}

func TestEverySettingByFlagAndVariable(t *testing.T) {
	tested := map[string]bool{}
	for _, test := range everySetting {
		tested[test.flag] = true
		s := setting(t, test.flag)
		var socket []string
		if test.flag == "stdin-socket" {
			socket = []string{"-bind", ":1"}
		}
		for _, source := range []Source{Flag, Variable} {
			t.Run(test.flag+" by "+source.String(), func(t *testing.T) {
				variables, args := map[string]string{}, socket
				if source == Flag {
					args = append(args, "-"+s.Flag+"="+test.value)
				} else {
					variables[s.Var] = test.value
				}
				c := load(t, variables, args...)
				if got, want := test.want(c); !reflect.DeepEqual(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				if c.Explicit[s.Flag] != source {
					t.Errorf("source %v, want %v", c.Explicit[s.Flag], source)
				}
				if len(c.Warnings) > 0 {
					t.Errorf("warnings %q", c.Warnings)
				}
			})
		}
	}
	for _, s := range settings {
		if s.Var != "" && !tested[s.Flag] {
			t.Errorf("-%s is not tested", s.Flag)
		}
	}
}

// The table and the struct must name the same variables, and none that somebody else sets.
func TestTable(t *testing.T) {
	fields := map[string]bool{}
	config := reflect.TypeFor[Config]()
	for i := range config.NumField() {
		if f := config.Field(i); f.Tag.Get("ignored") == "" {
			fields[f.Name] = true
		}
		if config.Field(i).Tag.Get("envconfig") != "" {
			t.Errorf("%s: such a tag makes envconfig read a variable without the prefix", config.Field(i).Name)
		}
	}
	flags := map[string]bool{}
	for _, s := range settings {
		if flags[s.Flag] {
			t.Errorf("-%s is there twice", s.Flag)
		}
		flags[s.Flag] = true
		if !slices.Contains(groups, s.Group) || s.Doc == "" || strings.HasSuffix(s.Doc, ".") {
			t.Errorf("-%s: group %q, doc %q", s.Flag, s.Group, s.Doc)
		}
		if s.Var == "" {
			continue
		}
		delete(fields, fieldOf(config, s.Var))
		if injected(s.Var) {
			t.Errorf("Kubernetes would set %s for a Service", s.Var)
		}
		if !strings.HasPrefix(s.Var, "CRANK_") {
			t.Errorf("-%s: %s", s.Flag, s.Var)
		}
		if s.Default == "" && s.Usually == "" {
			t.Errorf("-%s says no default", s.Flag)
		}
		c := defaults()
		if s.accept != nil && s.Default != "" && s.accept(s.value(&c).String()) != nil {
			t.Errorf("-%s does not accept its own default", s.Flag)
		}
	}
	if len(fields) > 0 {
		t.Errorf("fields without a row in the table: %q", slices.Sorted(maps.Keys(fields)))
	}
}

// fieldOf returns the field that a variable's name means.
func fieldOf(config reflect.Type, variable string) string {
	flat := strings.ReplaceAll(strings.TrimPrefix(variable, "CRANK_"), "_", "")
	field, _ := config.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, flat) })
	return field.Name
}

func TestPrecedence(t *testing.T) {
	variables := map[string]string{
		"CRANK_BIND": "a=:1, b=:2,", "CRANK_STOP_TIMEOUT": "5", "CRANK_GROUP": "true", "CRANK_OK_CODES": "1,2",
		"CRANK_START_TIMEOUT": "", "CRANK_NAME": "", "CRANK_GROUPS": "", "CRANK_LISTEN_PID": "", "CRANK_MAX_DRAINING": "",
		"CRANK_REWRITE": "", "CRANK_STOP_SIGNAL": "", "CRANK_HUP": "",
	}
	c := load(t, variables)
	if diff := cmp.Diff(Binds{"a=:1", "b=:2"}, c.Bind); diff != "" {
		t.Error(diff)
	}
	if c.Name != "app" || c.StartTimeout != Seconds(30*time.Second) || c.ListenPID == false || c.MaxDraining != 8 || c.HUP != "swap" {
		t.Errorf("an empty variable counts: %+v", c)
	}
	want := map[string]Source{"bind": Variable, "stop": Variable, "group": Variable, "ok-codes": Variable}
	if diff := cmp.Diff(want, c.Explicit); diff != "" {
		t.Error(diff)
	}

	c = load(t, nil, "-bind", "c=:3", "--bind=d=:4,5", "-stop", "6", "-stop=7", "-group=false", "-ok-codes", "3", "-name", "web")
	if diff := cmp.Diff(Binds{"c=:3", "d=:4,5"}, c.Bind); diff != "" {
		t.Error(diff)
	}
	if c.StopTimeout != Seconds(7*time.Second) || bool(c.Group) || !slices.Equal(c.OKCodes, Codes{3}) || c.Name != "web" {
		t.Errorf("%+v", c)
	}
	want = map[string]Source{"bind": Flag, "stop": Flag, "group": Flag, "ok-codes": Flag, "name": Flag}
	if diff := cmp.Diff(want, c.Explicit); diff != "" {
		t.Error(diff)
	}
}

// A setting without the prefix is not crank's.
func TestNoUnprefixedVariables(t *testing.T) {
	for _, name := range Variables() {
		t.Setenv(strings.TrimPrefix(name, "CRANK_"), "7")
	}
	t.Setenv("COMMAND", "x")
	t.Setenv("CRANK_COMMAND", "x")
	t.Setenv("CRANK_HELP", "true")
	t.Setenv("CRANK_INSTALL", "/x")
	t.Setenv("CRANK_EXPLICIT", "a:b")
	c := load(t, nil)
	if len(c.Settings()) > 0 || len(c.Command) > 0 || len(c.Explicit) > 0 || c.Help || c.Install != "" {
		t.Errorf("%+v", c)
	}
}

func TestDependentDefaults(t *testing.T) {
	for name, test := range map[string]struct {
		args       []string
		ready, hup string
	}{
		"no sockets":          {nil, "none", "forward"},
		"sockets":             {[]string{"-bind", ":1"}, "notify", "swap"},
		"sockets, given":      {[]string{"-bind", ":1", "-ready", "none", "-hup", "forward"}, "none", "forward"},
		"no sockets, notify":  {[]string{"-ready", "notify", "-hup", "swap"}, "notify", "swap"},
		"flags after a value": {[]string{"-hup", "ignore", "-bind", ":1"}, "notify", "ignore"},
	} {
		t.Run(name, func(t *testing.T) {
			c := load(t, nil, test.args...)
			if c.Ready != test.ready || c.HUP != test.hup {
				t.Errorf("-ready %s -hup %s, want %s and %s", c.Ready, c.HUP, test.ready, test.hup)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	for name, test := range map[string]struct{ args, want []string }{
		"none":                  {[]string{"-v", "1"}, []string{}},
		"after --":              {[]string{"-v", "1", "--", "-x", "--", "y"}, []string{"-x", "--", "y"}},
		"at the first non-flag": {[]string{"-group", "app", "-v", "x"}, []string{"app", "-v", "x"}},
		"a lone dash":           {[]string{"-", "x"}, []string{"-", "x"}},
		"2014's line":           {[]string{"-bind", ":8080", "-name", "server", "-prefix", "./", "-start", "10", "-stop", "20", "./app", "-a"}, []string{"./app", "-a"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := load(t, nil, test.args...).Command; !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestEmptyCommand(t *testing.T) {
	_, err := Load([]string{"--", "", "-x"})
	refused(t, err, "the command is empty")
}

func TestHelpAndVersion(t *testing.T) {
	t.Setenv("CRANK_SETTLE", "nonsense") // must not keep anybody from the help
	for _, arg := range []string{"-h", "-help", "--help"} {
		if c, err := Load([]string{"-v", "1", arg, "-nonsense"}); err != nil || !c.Help {
			t.Errorf("%s: %v, %v", arg, c.Help, err)
		}
	}
	for _, arg := range []string{"-version", "--version"} {
		if c, err := Load([]string{arg}); err != nil || !c.Version {
			t.Errorf("%s: %v, %v", arg, c.Version, err)
		}
	}
	if c, err := Load([]string{"--", "app", "-help", "-version"}); err == nil || c.Help || c.Version {
		t.Errorf("the app's own flags were taken: %+v, %v", c, err)
	}
}

func TestBadValues(t *testing.T) {
	const (
		duration = "want a number of seconds (10) or a Go duration (1m30s)"
		name     = "want 1 to 64 letters, digits, dots, dashes and underscores"
		codes    = "want exit codes from 0 to 255"
	)
	for _, test := range []struct{ flag, value, want string }{
		{"bind", "", "want [NAME=]URI"}, {"bind", " ", "want [NAME=]URI"},
		{"stdin-socket", "yes", "want true or false"}, {"stdin-socket", "true", "needs a -bind"},
		{"listen-pid", "2", "want true or false"},
		{"profile", "ngnix", "want systemd, nginx, "}, {"profile", "", "want systemd"},
		{"start", "", duration}, {"start", "x", duration}, {"start", "10 s", duration}, {"start", "1.2.3", duration},
		{"start", ".", duration}, {"start", "1e3", duration}, {"start", "inf", duration}, {"start", "-5", duration},
		{"start", "99999999999", duration}, {"start", "0x10", duration}, {"start", "-5s", "want no negative duration"},
		{"start", "0", "want more than 0"}, {"start", "0s", "want more than 0"},
		{"settle", "-1ms", "want no negative duration"}, {"stop", "soon", duration}, {"drain-delay", "5 m", duration},
		{"ready", "later", "want none, notify, "}, {"ready", "", "want none"}, {"ready", "exec:", "nothing after exec:"}, {"ready", "exec:a 'b", "quote"},
		{"ready", "-1s", "want none"}, {"ready", "https://x", "want none"},
		{"ready-interval", "0", "want more than 0"}, {"ready-timeout", "x", duration}, {"max-extend", "x", duration},
		{"watchdog-timeout", "-1s", "want no negative duration"},
		{"watchdog", "kill", "want report, swap or exit"},
		{"check", "", "want a command"}, {"check", `a "b`, "quote"},
		{"memory-check", "on", "want warn, refuse or off"},
		{"stop-signal", "TREM", `"TREM" is not a signal`}, {"stop-signal", "0", "want same or a signal"}, {"stop-signal", "33", "32 to 34"},
		{"stop-on", "TREM", `"TREM" is not a signal`}, {"stop-on", "", "want none or a list"}, {"stop-on", "TERM,", "want none or a list"},
		{"stop-on", "TERM,none", `"none" is not a signal`}, {"stop-on", "TERM,HUP", "-hup decides what HUP does"}, {"stop-on", "CHLD", "CHLD is crank's own"},
		{"stop-on", "PIPE", "PIPE is crank's own"}, {"stop-on", "URG", "URG is crank's own"}, {"stop-on", "KILL", "crank cannot receive KILL"},
		{"stop-on", "STOP", "crank cannot receive STOP"}, {"stop-on", "PROF", "crank cannot receive PROF"}, {"stop-on", "34", "32 to 34"},
		{"max-draining", "-1", "want a number from 0"}, {"max-draining", "many", "want a number from 0"}, {"max-draining", "4294967296", "want a number"},
		{"group", "maybe", "want true or false"},
		{"rewrite", "USR1", `"USR1" is no IN:OUT`}, {"rewrite", "", "is no IN:OUT"}, {"rewrite", "USR1:TERM,", "is no IN:OUT"},
		{"rewrite", "X:TERM", `"X" is not a signal`}, {"rewrite", "USR1:X", `"X" is not a signal`}, {"rewrite", "0:TERM", `"0" is not a signal`},
		{"rewrite", "KILL:TERM", "crank cannot receive KILL"}, {"rewrite", "19:TERM", "crank cannot receive STOP"}, {"rewrite", "PROF:TERM", "crank cannot receive PROF"},
		{"rewrite", "CHLD:TERM", "CHLD is crank's own"}, {"rewrite", "TERM:URG", "URG is crank's own"}, {"rewrite", "USR1:TERM,10:INT", "USR1 is rewritten twice"},
		{"hup", "reload", "want swap, forward or ignore"}, {"hup", "", "want swap"},
		{"restart", "yes", "want never, on-failure or always"},
		{"ok-codes", "256", codes}, {"ok-codes", "-1", codes}, {"ok-codes", "5-3", codes}, {"ok-codes", "1,,2", codes}, {"ok-codes", "", codes}, {"ok-codes", "a", codes}, {"ok-codes", "1-", codes},
		{"name", "", name}, {"name", "a/b", name}, {"name", "a b", name}, {"name", "é", name}, {"name", "a\n", name}, {"name", strings.Repeat("a", 65), name},
		{"prefix", "", "want a directory"}, {"cwd", "", "want a directory"}, {"conf", "", "want a path or off"},
		{"ctl", "", "want a path"}, {"ctl", "127.0.0.1:9000", "want a path, tcp://"}, {"ctl", ":9000", "want a path, tcp://"},
		{"ctl-readonly", "on", "want true or false"}, {"no-new-privs", "x", "want true or false"}, {"notify-parent", "x", "want true or false"},
		{"output", "json", "want auto, inherit or tag"}, {"log-format", "logfmt", "want auto, text or json"},
		{"redact", "(", "want a regular expression: missing closing )"},
		{"v", "debug", "want a number from 0"}, {"v", "-1", "want a number from 0"},
	} {
		s := setting(t, test.flag)
		t.Run(test.flag+"="+test.value, func(t *testing.T) {
			_, err := Load([]string{"-" + test.flag + "=" + test.value})
			refused(t, err, test.want, "-"+test.flag)
			if test.value == "" {
				return // as a variable it is not set
			}
			t.Setenv(s.Var, test.value)
			_, err = Load(nil)
			refused(t, err, test.want, s.Var)
			// A variable that is wrong is wrong even under a flag that replaces it.
			if _, err := Load([]string{"-v", "1"}); err == nil {
				t.Error("forgiven")
			}
		})
	}
}

func refused(t *testing.T, err error, mentions ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range mentions {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestErrorWording(t *testing.T) {
	_, err := Load([]string{"-settle", "abc"})
	want := `invalid value "abc" for flag -settle: want a number of seconds (10) or a Go duration (1m30s) (crank -help says more)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	t.Setenv("CRANK_HUP", "abc")
	_, err = Load(nil)
	want = `invalid value "abc" for CRANK_HUP: want swap, forward or ignore`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestUnknownFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"-bnd=:80": "unknown flag -bnd: did you mean -bind?", "-start-timeout": "did you mean -start?", "-log-level": "did you mean -v?",
		"-stop_timeout": "did you mean -stop?", "--Name": "did you mean -name?", "-okcodes": "did you mean -ok-codes?",
		"-log": "did you mean -log-format?", "-drain": "did you mean -drain-delay?", "-versoin": "did you mean -version?",
		"-x": "unknown flag -x (crank -help lists the flags)", "-ctl-token": "unknown flag -ctl-token",
		"-kubernetes": "unknown flag -kubernetes (crank -help",
	} {
		_, err := Load([]string{arg})
		refused(t, err, want, "crank -help")
	}
	_, err := Load([]string{"-name"})
	refused(t, err, "flag needs an argument: -name")
	_, err = Load([]string{"---name"})
	refused(t, err, "bad flag syntax: ---name")
}

func TestUnknownVariables(t *testing.T) {
	environ := []string{
		"PATH=/bin", "CRANK=1", "CRANKY_X=1", "XCRANK_Y=1",
		"CRANK_VERSION=1", "CRANK_GENERATION=3", "CRANK_SLOT=0", "CRANK_CTL_TOKEN_FILE=/x", "CRANK_NAME=a", "CRANK_SETTLE=1",
		"CRANK_PORT=tcp://1.2.3.4:80", "CRANK_PORT_80_TCP_ADDR=1.2.3.4", "CRANK_SERVICE_HOST=1.2.3.4", "CRANK_SERVICE_PORT_HTTP=80",
		"CRANK_WEB_SERVICE_HOST=1.2.3.4", "CRANK_WEB_PORT_80_TCP=tcp://1.2.3.4:80",
		"CRANK_BINDS=1", "CRANK_START=10", "CRANK_V=1", "CRANK_KUBERNETES=x", "CRANK_=1", "CRANK_BINDS=2",
	}
	want := []string{
		"unknown variable CRANK_ has no effect",
		"unknown variable CRANK_BINDS has no effect: did you mean CRANK_BIND?",
		"unknown variable CRANK_KUBERNETES has no effect",
		"unknown variable CRANK_START has no effect: did you mean CRANK_START_TIMEOUT?",
		"unknown variable CRANK_V has no effect: did you mean CRANK_LOG_LEVEL?",
	}
	if diff := cmp.Diff(want, unknownVariables(environ)); diff != "" {
		t.Error(diff)
	}
	t.Setenv("CRANK_BIDN", ":80")
	if c := load(t, nil); !slices.Equal(c.Warnings, []string{"unknown variable CRANK_BIDN has no effect: did you mean CRANK_BIND?"}) {
		t.Errorf("%q", c.Warnings)
	}
}

// What may hold a secret is shown neither by Settings nor in an error.
func TestSecrets(t *testing.T) {
	c := load(t, nil, "-bind", ":1", "-check", "true hunter2", "-redact", "hunter2|token=", "-ready", "exec:probe token=1", "-conf", "/srv/web.conf")
	want := map[string]string{"bind": ":1", "check": "***", "redact": "***", "ready": "***", "conf": "/srv/web.conf"}
	if diff := cmp.Diff(want, c.Settings()); diff != "" {
		t.Error(diff)
	}
	for _, args := range [][]string{{"-check", "true 'hunter2"}, {"-redact", "hunter2("}} {
		if _, err := Load(args); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestRedactor(t *testing.T) {
	words := []string{"/app", "--password=hunter2", "-v", "a\nb --token x"}
	for pattern, want := range map[string][]string{
		"":                    words,
		"^--(password|token)": {"/app", "***", "-v", words[3]},
		"token|hunter":        {"/app", "***", "-v", "***"},
		"^/app$":              {"***", words[1], "-v", words[3]},
		"nothing":             words,
	} {
		before := slices.Clone(words)
		if diff := cmp.Diff(want, load(t, nil, "-redact", pattern).Redactor()(words)); diff != "" {
			t.Errorf("%q: %s", pattern, diff)
		}
		if !slices.Equal(before, words) {
			t.Fatalf("%q: the words themselves were changed: they are still to be executed", pattern)
		}
	}
}

func TestSettings(t *testing.T) {
	c := load(t, map[string]string{"CRANK_OK_CODES": "143,1,2,3", "CRANK_NAME": "app"},
		"-bind", ":1", "-bind", "x=:2", "-hup", "swap", "-ready", "none", "-rewrite", "12:0,sigusr1:15", "-stop", "60", "-stop-signal", "36",
		"-listen-pid=false", "-start", "30")
	want := map[string]string{ // -hup, -start and CRANK_NAME are at their defaults
		"bind": ":1,x=:2", "ready": "none", "rewrite": "USR1:TERM,USR2:0", "ok-codes": "1-3,143", "stop": "1m",
		"stop-signal": "RTMIN+2", "listen-pid": "false",
	}
	if diff := cmp.Diff(want, c.Settings()); diff != "" {
		t.Error(diff)
	}
}

func TestVariables(t *testing.T) {
	got := Variables()
	for _, want := range []string{"CRANK_BIND", "CRANK_START_TIMEOUT", "CRANK_LOG_LEVEL", "CRANK_CTL"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if slices.Contains(got, "") || slices.Contains(got, "CRANK_GENERATION") {
		t.Errorf("%q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"bind", "bind", 0}, {"", "", 0}, {"", "ab", 2}, {"bnd", "bind", 1}, {"binds", "bind", 1}, {"bimd", "bind", 1}, {"bidn", "bind", 1},
		{"idnb", "bind", 3}, {"settle", "stop", 4}, {"x", "abcdefgh", 5},
	} {
		if got := distance(test.a, test.b, 5); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// TestNotifyParent: somebody above who wants to know is told, unless crank is PID 1 or was asked not to.
func TestNotifyParent(t *testing.T) {
	if c := load(t, nil); c.NotifyParent {
		t.Error("without NOTIFY_SOCKET")
	}
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	if c := load(t, nil); !c.NotifyParent {
		t.Error("not told, although NOTIFY_SOCKET is set")
	}
	if c := load(t, nil, "-notify-parent=false"); c.NotifyParent {
		t.Error("told, although that is off")
	}
}
