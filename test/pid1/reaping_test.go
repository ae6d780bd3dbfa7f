package pid1

import (
	"bytes"
	"fmt"
	"strconv"
)

// reaping: nobody else can wait for a process that has lost its parent.
var reaping = []behaviour{
	{name: "an orphan is reaped", check: func(p *program, _ []string) error {
		return orphansReaped(p, "1", "1")
	}},
	{name: "a thousand orphans at once are reaped", check: func(p *program, _ []string) error {
		return orphansReaped(p, "1000", "1000")
	}},
	{name: "an orphan that called setsid is reaped", check: func(p *program, _ []string) error {
		return daemonReaped(p, "setsid")
	}},
	{name: "a daemon (forked twice) is reaped", check: func(p *program, _ []string) error {
		return daemonReaped(p, "twice")
	}},
	{name: "the app's own status is never lost while 1000 orphans are reaped, 10 times", check: func(p *program, _ []string) error {
		for n := range 10 {
			err := inContainer(p, options{}, nil, app("orphans", "1000", "250", strconv.Itoa(n+1)), func(c *container) error {
				return c.ends(n + 1)
			})
			if err != nil {
				return fmt.Errorf("run %d: %w", n, err)
			}
		}
		return nil
	}},
}

// orphansReaped lets an app make orphans, and waits until it alone is left.
func orphansReaped(p *program, n, batch string) error {
	in, end, err := pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	defer end.Close()
	return inContainer(p, options{stdin: in}, nil, app("orphans", n, batch), func(c *container) error {
		if _, err := c.expect("done"); err != nil {
			return err
		}
		return c.alone("inside")
	})
}

// alone waits until the app is the only child of the init.
func (c *container) alone(comm string) error {
	_, err := c.app(comm)
	return err
}

// daemonReaped kills a process that has lost its parent while the app runs on.
func daemonReaped(p *program, how string) error {
	script := `"$0" leave 0 ` + how + `; echo left; while :; do sleep 60; done`
	return inContainer(p, options{}, nil, []string{"/bin/sh", "-c", script, inside}, func(c *container) error {
		if _, err := c.expect("left behind"); err != nil {
			return err
		}
		if _, err := c.expect("left"); err != nil {
			return err
		}
		orphans := func() (pids []int) {
			for _, child := range childrenOf(c.pid) {
				if statusOf(child.pid, "Name") == "inside" {
					pids = append(pids, child.pid)
				}
			}
			return pids
		}
		pids := orphans()
		if len(pids) != 1 {
			return fmt.Errorf("the init has adopted %v, want one process", pids)
		}
		if err := kill(pids[0]); err != nil {
			return err
		}
		return eventually(func() error {
			if _, ok := lookup(pids[0]); ok && bytes.ContainsAny([]byte(statusOf(pids[0], "State")), "Z") {
				return fmt.Errorf("process %d is a zombie", pids[0])
			}
			if left := orphans(); len(left) > 0 {
				return fmt.Errorf("%v are left", left)
			}
			return nil
		})
	})
}
