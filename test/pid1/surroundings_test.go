package pid1

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/crankctl/crank/test/pid1/spec"
)

// surroundings: the app runs wherever it would have run without an init.
var surroundings = []behaviour{
	{name: "nothing writable, an arbitrary user, no capability", check: func(p *program, _ []string) error {
		return runs(p, options{spec: spec.Spec{ReadOnly: true}, uid: 12345})
	}},
	{name: "no environment at all", check: func(p *program, _ []string) error {
		return runs(p, options{spec: spec.Spec{Env: []string{}}})
	}},
	{name: "no /proc", check: func(p *program, _ []string) error {
		return runs(p, options{spec: spec.Spec{NoProc: true}})
	}},
	{name: "stdin, stdout and stderr closed", check: func(p *program, _ []string) error {
		for _, closed := range [][]int{{0}, {2}, {0, 1, 2}} {
			err := inContainer(p, options{spec: spec.Spec{Close: closed}}, nil, []string{"/bin/sh", "-c", "exit 7"}, func(c *container) error { return c.ends(7) })
			if err != nil {
				return fmt.Errorf("%v closed: %w", closed, err)
			}
		}
		return nil
	}},
	{name: "nobody reads stdout and stderr any more", check: func(p *program, _ []string) error {
		return inContainer(p, options{}, nil, []string{"/bin/sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"}, func(c *container) error {
			if _, err := c.expect("ready"); err != nil {
				return err
			}
			c.stopReading()
			if err := c.signal(syscall.SIGTERM); err != nil {
				return err
			}
			return c.ends(7)
		})
	}},
	{name: "says nothing of its own", check: func(p *program, _ []string) error {
		return inContainer(p, options{}, nil, []string{"/bin/sh", "-c", "echo one; exit 0"}, func(c *container) error {
			if err := c.ends(0); err != nil {
				return err
			}
			if lines := c.rest(); !slices.Equal(lines, []string{"one"}) || c.stderr.String() != "" {
				return fmt.Errorf("stdout %q, stderr %q", lines, &c.stderr)
			}
			return nil
		})
	}},
}

// runs checks that an app starts, gets a signal, leaves an orphan, and ends with its code.
func runs(p *program, o options) error {
	script := `trap 'exit 7' TERM; (sleep 0 &); echo ready; while :; do sleep 0.05; done`
	return inContainer(p, o, nil, []string{"/bin/sh", "-c", script}, func(c *container) error {
		if _, err := c.expect("ready"); err != nil {
			return err
		}
		if err := c.signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := c.ends(7); err != nil {
			return err
		}
		if text := c.stderr.String(); p.ours() && text != "" {
			return fmt.Errorf("it says %q", text)
		}
		return nil
	})
}
