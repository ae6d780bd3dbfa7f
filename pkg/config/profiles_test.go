package config

import (
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/crankctl/crank/pkg/profile"
)

func preset(t *testing.T, name string) profile.Profile {
	t.Helper()
	p, ok := profile.Find(name)
	if !ok {
		t.Fatalf("no profile %s", name)
	}
	return p
}

// What a flag or a variable says wins over the profile, and the profile over the default.
func TestProfilePrecedence(t *testing.T) {
	for _, test := range []struct {
		variables map[string]string
		args      []string
		signal    syscall.Signal
		stdin     Switch
		ok        Codes
		listen    bool
	}{
		{nil, nil, 0, false, nil, true},
		{nil, []string{"-profile", "nginx"}, syscall.SIGQUIT, false, nil, false},
		{map[string]string{"CRANK_PROFILE": "nginx"}, nil, syscall.SIGQUIT, false, nil, false},
		{map[string]string{"CRANK_PROFILE": "nginx"}, []string{"-profile", "haproxy"}, syscall.SIGUSR1, false, nil, true},
		{nil, []string{"-profile", "nginx", "-stop-signal", "same"}, 0, false, nil, false},
		{map[string]string{"CRANK_STOP_SIGNAL": "INT"}, []string{"-profile", "nginx"}, syscall.SIGINT, false, nil, false},
		{nil, []string{"-profile", "java"}, 0, true, Codes{143}, true},
		{nil, []string{"-profile", "java", "-stdin-socket=false", "-ok-codes", "1"}, 0, false, Codes{1}, true},
		{nil, []string{"-profile", "none"}, 0, false, nil, false},
		{nil, []string{"-profile", "none", "-listen-pid"}, 0, false, nil, true},
		{map[string]string{"CRANK_LISTEN_PID": "false"}, []string{"-profile", "none"}, 0, false, nil, false},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			c := load(t, test.variables, append(test.args, "-bind", ":1")...)
			got := []any{syscall.Signal(c.StopSignal), c.StdinSocket, c.OKCodes, c.Preset.Listen}
			if want := []any{test.signal, test.stdin, test.ok, test.listen}; !reflect.DeepEqual(got, want) {
				t.Errorf("%v: got %v, want %v", test.variables, got, want)
			}
			if c.Preset.Name != c.Profile {
				t.Errorf("profile %s, preset %s", c.Profile, c.Preset.Name)
			}
		})
	}
}

func TestProfileReady(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-profile", "nginx"}, "1s"},
		{[]string{"-profile", "php-fpm"}, "notify"},
		{[]string{"-profile", "none"}, "notify"},
		{[]string{"-profile", "nginx", "-ready", "notify"}, "notify"},
	} {
		if got := load(t, nil, append(test.args, "-bind", ":1")...).Ready; got != test.want {
			t.Errorf("%v: %s, want %s", test.args, got, test.want)
		}
	}
}

// A profile may be named where there is no socket.
func TestProfileWithoutBind(t *testing.T) {
	if c := load(t, nil, "-profile", "java", "-ready", "none"); !c.OKCodes.Has(143) {
		t.Errorf("ok-codes %v", c.OKCodes)
	}
}

// Every setting of a profile is one that its flag takes.
func TestProfileSettings(t *testing.T) {
	for _, p := range profile.Profiles {
		for _, s := range p.Settings {
			row, c := setting(t, s.Flag), defaults()
			if err := row.value(&c).Set(s.Value); err != nil {
				t.Errorf("%s: -%s %s: %v", p.Name, s.Flag, s.Value, err)
			}
			if row.accept != nil && row.accept(row.value(&c).String()) != nil {
				t.Errorf("%s: -%s %s is not accepted", p.Name, s.Flag, s.Value)
			}
		}
	}
}

func TestProfileHelp(t *testing.T) {
	c := load(t, map[string]string{"CRANK_STOP_TIMEOUT": "never"}, "-profile", "help", "-bind", ":1")
	if c.Profile != ProfileHelp {
		t.Errorf("profile %q", c.Profile)
	}
	text := Profiles()
	for _, name := range profile.Names() {
		if !strings.Contains(text, "\n  "+name+" ") {
			t.Errorf("%s is missing in:\n%s", name, text)
		}
	}
	if slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool { return len(line) > width }) {
		t.Errorf("wider than %d:\n%s", width, text)
	}
}
