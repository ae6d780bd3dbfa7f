package config

import (
	"reflect"
	"testing"
	"time"
)

func TestReadiness(t *testing.T) {
	for _, c := range []struct {
		args []string
		want Readiness
	}{
		{[]string{"-bind", ":80"}, Readiness{}},
		{nil, Readiness{None: true}},
		{[]string{"-ready", "notify"}, Readiness{}},
		{[]string{"-bind", ":80", "-ready", "none"}, Readiness{None: true}},
		{[]string{"-ready", "1.5"}, Readiness{Alive: 1500 * time.Millisecond}},
		{[]string{"-ready", "2m"}, Readiness{Alive: 2 * time.Minute}},
		{[]string{"-ready", "exec:pg_isready -h '/run/a b'"}, Readiness{Exec: []string{"pg_isready", "-h", "/run/a b"}}},
		{[]string{"-ready", `exec:["test", "-f", "a b"]`}, Readiness{Exec: []string{"test", "-f", "a b"}}},
		{[]string{"-ready", "http://127.0.0.1:8{generation}/up"}, Readiness{Address: "http://127.0.0.1:8{generation}/up"}},
		{[]string{"-ready", "tcp://[::1]:80"}, Readiness{Address: "tcp://[::1]:80"}},
	} {
		cfg, err := Load(append(c.args, "/app"))
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Readiness(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, want %+v", c.args, got, c.want)
		}
	}
}

func TestCheckCommand(t *testing.T) {
	cfg, err := Load([]string{"-check", "nginx -t -c 'a b'", "nginx"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.CheckCommand(), []string{"nginx", "-t", "-c", "a b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (Config{}).CheckCommand(); got != nil {
		t.Errorf("%q, want nothing", got)
	}
}
