package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/control"
)

// fileFaults are what happens to crank's files and to the app's binary.
func fileFaults() []*fault {
	return []*fault{
		{
			name:    "disk full (ENOSPC)",
			missing: withoutMount,
			setup:   func(c *cell) { c.mount("size=64k") },
			inject:  func(c *cell) { c.fill("fill") },
			check:   (*cell).notSaved,
			at: [moments]expectation{
				beforeStart: often(starts, "the control socket needs no block; the command is not saved, and the log says so"),
				starting:    rare(swaps, "the command is not saved, and the answer says so"),
				settling:    rare(swaps, "the command is not saved, and the answer says so"),
				ready:       often(swaps, "the command is not saved, and the answer says so"),
				draining:    rare(servesOn, "nothing is written"),
				stopping:    rare(endsWith(0), "nothing is written"),
			},
		},
		{
			name:    "no inode is left (ENOSPC)",
			missing: withoutMount,
			setup:   func(c *cell) { c.mount("size=1m,nr_inodes=30") },
			inject: func(c *cell) {
				for i := range 30 {
					path := filepath.Join(c.prefix, fmt.Sprint("fill", i))
					if os.WriteFile(path, nil, 0o644) != nil {
						return
					}
					c.onUndo(func() { c.must(os.Remove(path)) })
				}
				c.Error("there are inodes left")
			},
			check: (*cell).notSaved,
			at: [moments]expectation{
				beforeStart: rare(endsWith(125), "the runtime directory that was named cannot be used"),
				starting:    rare(swaps, "the command is not saved, and the answer says so"),
				settling:    rare(swaps, "the command is not saved, and the answer says so"),
				ready:       often(swaps, "the notify socket has an abstract address; the command is not saved"),
				draining:    rare(servesOn, "nothing is made"),
				stopping:    rare(endsWith(0), "nothing is made"),
			},
		},
		{
			name:    "the runtime directory is read-only (EROFS)",
			missing: withoutMount,
			setup:   func(c *cell) { c.mount("size=1m") },
			inject: func(c *cell) {
				// Not while crank has a file open for writing.
				c.eventually("it is read-only", func() error { return c.remount(syscall.MS_RDONLY) })
				c.onUndo(func() { c.must(c.remount(0)) })
			},
			check: (*cell).notSaved,
			at:    denied,
		},
		{
			name:  "the runtime directory is forbidden (EACCES)",
			setup: (*cell).anotherUser,
			inject: func(c *cell) {
				c.must(os.MkdirAll(c.prefix, 0o711))
				c.must(os.Chmod(c.prefix, 0))
				c.onUndo(func() { c.must(os.Chmod(c.prefix, 0o711)) })
			},
			unreachable: true, // unless the test is root
			at:          denied,
		},
		{
			name: "the runtime directory is deleted",
			inject: func(c *cell) {
				c.eventually("it is deleted", func() error { return os.RemoveAll(c.prefix) }) // crank may be saving into it
			},
			unreachable: true,
			at:          deleted,
		},
		{
			name:        "the control socket is deleted",
			inject:      func(c *cell) { c.must(os.Remove(filepath.Join(c.prefix, "app.ctl"))) },
			unreachable: true,
			at:          deleted,
		},
		{
			name:  "the binary is replaced while it runs",
			setup: func(c *cell) { c.own() },
			inject: func(c *cell) {
				c.must(replace(c.app[0], func(b []byte) []byte { return append(b, 0) }))
			},
			at: [moments]expectation{
				beforeStart: none("nothing runs yet"),
				starting:    rare(swaps, "the candidate is the old one, and the next one the new one"),
				settling:    rare(swaps, "the candidate is the old one, and the next one the new one"),
				ready:       often(swaps, "the new one is run"),
				draining:    rare(servesOn, "those that run keep theirs"),
				stopping:    rare(endsWith(0), "those that run keep theirs"),
			},
		},
		{
			name:  "the new binary is still being written (ETXTBSY)",
			setup: func(c *cell) { c.own() },
			inject: func(c *cell) {
				c.must(replace(c.app[0], func(b []byte) []byte { return b }))
				c.must(c.holdForWriting(c.app[0]))
			},
			at: notExecutable,
		},
		{
			name:  "the new binary is held by a write lease",
			setup: func(c *cell) { c.own() },
			inject: func(c *cell) {
				c.must(replace(c.app[0], func(b []byte) []byte { return b }))
				c.lease(c.app[0])
			},
			check: func(c *cell, got outcome) {
				if got == servesOn && c.moment == ready && !strings.Contains(find(c.moves(), c.tried, "failed").cause, "holds a lease on it") {
					c.Error("the answer does not say why")
				}
			},
			at: notExecutable,
		},
		{
			name: "the exec hangs: a write lease on the interpreter",
			setup: func(c *cell) {
				c.flags = append(c.flags, "-start", "10s")
				c.interpreted()
			},
			inject: func(c *cell) { c.lease(c.interpreter()) },
			at: [moments]expectation{
				beforeStart: often(endsWith(124), "the first exec does not finish within -start"),
				starting:    rare(swaps, "the candidate runs already"),
				settling:    rare(swaps, "the candidate runs already"),
				ready:       often(servesOn, "the exec of the candidate times out; crank keeps answering, and crankctl abort would end it"),
				draining:    rare(servesOn, "nothing is executed"),
				stopping:    rare(endsWith(0), "nothing is executed"),
			},
		},
		{
			name:  "the new binary is cut off",
			setup: func(c *cell) { c.own() },
			inject: func(c *cell) {
				c.must(replace(c.app[0], func(b []byte) []byte { return b[:len(b)/2] }))
			},
			undo: func(c *cell) { c.must(replace(c.app[0], func(b []byte) []byte { return b })) },
			at: [moments]expectation{
				beforeStart: often(ends, "with 126 where the kernel refuses it, else with what ends it"),
				starting:    rare(swaps, "the candidate runs already"),
				settling:    rare(swaps, "the candidate runs already"),
				ready:       often(servesOn, "the candidate fails"),
				draining:    rare(servesOn, "nothing is executed"),
				stopping:    rare(endsWith(0), "nothing is executed"),
			},
		},
	}
}

// denied is what follows where nothing can be changed in the runtime directory.
var denied = [moments]expectation{
	beforeStart: often(endsWith(125), "the runtime directory that was named cannot be used"),
	starting:    rare(swaps, "the command is not saved, and the answer says so"),
	settling:    rare(swaps, "the command is not saved, and the answer says so"),
	ready:       often(swaps, "the notify socket has an abstract address; the command is not saved"),
	draining:    rare(servesOn, "nothing is written"),
	stopping:    rare(endsWith(0), "the files of sockets stay"),
}

// notExecutable is what follows where the kernel refuses to execute the binary.
var notExecutable = [moments]expectation{
	beforeStart: often(endsWith(126), "the command cannot be executed"),
	starting:    rare(swaps, "the candidate runs already"),
	settling:    rare(swaps, "the candidate runs already"),
	ready:       often(servesOn, "the candidate cannot be executed, and the answer says why"),
	draining:    rare(servesOn, "nothing is executed"),
	stopping:    rare(endsWith(0), "nothing is executed"),
}

// deleted is what follows where crank's files are gone.
var deleted = [moments]expectation{
	beforeStart: none("crank makes it"),
	starting:    rare(swaps, "HUP swaps at once; crankctl reaches crank again within a second or two"),
	settling:    rare(swaps, "HUP swaps at once; crankctl reaches crank again within a second or two"),
	ready:       often(swaps, "HUP swaps at once; crankctl reaches crank again within a second or two"),
	draining:    rare(servesOn, "HUP swaps at once; crankctl reaches crank again within a second or two"),
	stopping:    rare(endsWith(0), "nothing is missed"),
}

// withoutMount says why there can be no mount.
func withoutMount() string {
	dir, err := os.MkdirTemp("", "f")
	if err != nil {
		return err.Error()
	}
	defer os.Remove(dir)
	if err := syscall.Mount("faults", dir, "tmpfs", 0, "size=64k"); err != nil {
		return "a file system cannot be mounted: " + err.Error()
	}
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return err.Error()
	}
	return ""
}

// mount makes the runtime directory a small file system of its own.
func (c *cell) mount(options string) {
	c.Helper()
	c.must(os.Mkdir(c.prefix, 0o711))
	c.must(syscall.Mount("faults", c.prefix, "tmpfs", 0, options+",mode=0711"))
	c.Cleanup(func() {
		c.end()
		if err := syscall.Unmount(c.prefix, syscall.MNT_DETACH); err != nil {
			c.Error(err)
		}
	})
}

func (c *cell) remount(flags uintptr) error {
	return syscall.Mount("faults", c.prefix, "tmpfs", syscall.MS_REMOUNT|flags, "")
}

// fill writes until no block is left, until undo.
func (c *cell) fill(name string) {
	c.Helper()
	path := filepath.Join(c.prefix, name)
	file, err := os.Create(path)
	c.must(err)
	defer file.Close()
	page := make([]byte, 4096)
	for range 1000 {
		if _, err = file.Write(page); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		c.Fatalf("the disk is not full: %v", err)
	}
	c.onUndo(func() { c.must(os.Remove(path)) })
}

// holdForWriting has another process hold a file open for writing, until undo.
func (c *cell) holdForWriting(path string) error {
	cmd := exec.Command("sh", "-c", `exec 3>>"$1" && echo held && read end`, "sh", path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.onUndo(func() {
		stdin.Close()
		cmd.Wait()
	})
	_, err = bufio.NewReader(stdout).ReadString('\n')
	return err
}

// interpreter is the path of the script's interpreter; interpreted writes both.
func (c *cell) interpreter() string { return filepath.Join(c.dir, "sh") }

// interpreted starts the app from a script that has its own interpreter.
func (c *cell) interpreted() {
	c.Helper()
	shell, err := os.ReadFile("/bin/sh")
	c.must(err)
	c.must(os.WriteFile(c.interpreter(), shell, 0o755))
	script := filepath.Join(c.dir, "app")
	c.must(os.WriteFile(script, fmt.Appendf(nil, "#!%s\nexec %s \"$@\"\n", c.interpreter(), filepath.Join(bin, "app")), 0o755))
	c.app[0], c.candidate[0] = script, script
}

// lease takes a write lease on a file (fcntl(2), F_SETLEASE) until undo. It does not notice that the file is wanted: Go ignores SIGIO.
func (c *cell) lease(path string) {
	c.Helper()
	file, err := os.Open(path)
	c.must(err)
	c.onUndo(func() { file.Close() })
	c.eventually("no other process has the file open", func() error {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), syscall.F_SETLEASE, syscall.F_WRLCK); errno != 0 {
			return errno
		}
		return nil
	})
}

// notSaved makes sure that crank says so where a swap has succeeded whose command could not be saved.
func (c *cell) notSaved(got outcome) {
	c.Helper()
	if got != swaps {
		return
	}
	c.eventually("crank says that the command is not saved", func() error {
		status, err := c.client.Status(context.Background())
		if err != nil {
			return err
		}
		if s := status.LastSwap.Saved; s == control.IsSaved || s == control.IsPending || s == control.IsOff {
			return fmt.Errorf("it says %q", s)
		}
		return nil
	})
}
