package pid1

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/crankctl/crank/test/pid1/spec"
)

// inheriting: the app finds what it would have found had it been executed in the place of the init.
var inheriting = []behaviour{
	{name: "nothing blocked, ignored or caught, as after a plain exec", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{}, masks)
	}},
	{name: "HUP and INT that were ignored (nohup) stay ignored", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{Ignore: []syscall.Signal{1, 2}}, masks)
	}},
	{name: "32, which is the C library's, stays ignored", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{Ignore: []syscall.Signal{32}}, masks)
	}},
	{name: "other signals that were ignored stay ignored", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{Ignore: []syscall.Signal{3, 11, 15, 20, 21, 22, 40}}, masks)
	}, lacks: "the Go runtime has put its handlers in their place before any package is initialised"},
	{name: "USR1, TTIN and a real-time signal that were blocked stay blocked", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{Block: []syscall.Signal{10, 21, 50}}, masks)
	}},
	{name: "TERM, ILL and others that were blocked stay blocked", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{Block: []syscall.Signal{1, 2, 3, 4, 6, 15}}, masks)
	}, lacks: "the Go runtime has unblocked them before any package is initialised"},
	{name: "all 16 resource limits", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{Limits: limits}, []string{"limits"})
	}},
	{name: "umask", check: func(p *program, _ []string) error { return asPlain(p, spec.Spec{Umask: 0o137}, []string{"Umask"}) }},
	{name: "niceness", check: func(p *program, _ []string) error { return asPlain(p, spec.Spec{Nice: 19}, []string{"nice"}) }},
	{name: "a process group of its own", check: ownGroup},
	{name: "descriptors from 3 on that were not meant for it stay away from the app", check: noDescriptors},
	{name: "NO_NEW_PRIVS, capabilities, seccomp, working directory", check: func(p *program, _ []string) error {
		return asPlain(p, spec.Spec{}, []string{"NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "cwd"})
	}},
}

var masks = []string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"}

// limits are all different from those of a test program, and wide enough to start one.
var limits = map[int][2]uint64{
	0: {100, 200}, 1: {1 << 40, 1 << 41}, 2: {1 << 40, 1 << 42}, 3: {1 << 22, 1 << 23}, 4: {0, 1 << 20}, 5: {1 << 40, 1 << 43},
	6: {10000, 20000}, 7: {333, 777}, 8: {4096, 8192}, 9: {1 << 40, 1 << 44}, 10: {100, 200}, 11: {300, 400}, 12: {1000, 2000},
	13: {0, 0}, 14: {0, 0}, 15: {1 << 20, 1 << 21},
}

// found is what an app finds, by name.
func found(p *program, s spec.Spec) (map[string]string, error) {
	all := map[string]string{}
	// cat looks at itself: no shell has changed anything.
	err := inContainer(p, options{spec: s}, nil, []string{"/bin/cat", "/proc/self/status", "/proc/self/limits", "/proc/self/stat"}, func(c *container) error {
		if err := c.ends(0); err != nil {
			return err
		}
		lines := c.rest()
		for _, line := range lines {
			if name, value, ok := strings.Cut(line, ":"); ok {
				all[name] = strings.TrimSpace(value)
			} else if strings.HasPrefix(line, "Max ") {
				all["limits"] += line + "\n"
			}
		}
		f := strings.Fields(lines[len(lines)-1])
		all["nice"], all["group"], all["session"], all["pid"] = f[18], f[4], f[5], f[0]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, inContainer(p, options{spec: s}, nil, []string{"/bin/pwd"}, func(c *container) error {
		if err := c.ends(0); err != nil {
			return err
		}
		all["cwd"] = strings.Join(c.rest(), "\n")
		return nil
	})
}

func asPlain(p *program, s spec.Spec, fields []string) error {
	want, err := found(plain, s)
	if err != nil {
		return err
	}
	got, err := found(p, s)
	if err != nil {
		return err
	}
	var wrong []error
	for _, field := range fields {
		if want[field] == "" {
			wrong = append(wrong, fmt.Errorf("there is no %s among %v", field, slices.Collect(maps.Keys(want))))
		}
		if got[field] != want[field] {
			wrong = append(wrong, fmt.Errorf("%s: %q, after a plain exec %q", field, got[field], want[field]))
		}
	}
	return errors.Join(wrong...)
}

// ownGroup: the app leads a process group, in crank's session (some peers give it one of its own).
func ownGroup(p *program, _ []string) error {
	got, err := found(p, spec.Spec{})
	if err != nil {
		return err
	}
	if got["group"] != got["pid"] {
		return fmt.Errorf("process %s is in group %s", got["pid"], got["group"])
	}
	if p.ours() && got["session"] == got["pid"] {
		return fmt.Errorf("process %s leads a session", got["pid"])
	}
	return nil
}

var descriptor = regexp.MustCompile(` ([0-9]+) -> (.*)$`)

func noDescriptors(p *program, _ []string) error {
	s := spec.Spec{Leak: 3}
	return inContainer(p, options{spec: s}, nil, []string{"/bin/ls", "-l", "/proc/self/fd"}, func(c *container) error {
		if err := c.ends(0); err != nil {
			return err
		}
		notify := 0 // NOTIFY_FD is meant for it
		for _, line := range c.rest() {
			m := descriptor.FindStringSubmatch(line)
			switch {
			case m == nil || m[1] == "0" || m[1] == "1" || m[1] == "2" || strings.HasSuffix(m[2], "/fd"):
			case p.ours() && strings.HasPrefix(m[2], "socket:") && notify == 0:
				notify++
			default:
				return fmt.Errorf("the app has descriptor %s, %s", m[1], m[2])
			}
		}
		return nil
	})
}
