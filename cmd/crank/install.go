package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// install copies crank and crankctl, which is beside it, into dir, for an init container that puts
// them into an image that has none, and makes crankx. Each file appears by a rename, complete or not
// at all. Nothing outside dir is written to, whatever links are in it: os.Root sees to that, and a
// rename replaces a link instead of following it.
func install(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot install: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot install into %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("cannot install into %s: %w", dir, err)
	}
	defer root.Close()
	from := filepath.Dir(self)
	for name, source := range map[string]string{"crank": self, "crankctl": filepath.Join(from, "crankctl")} {
		if err := installFile(root, name, source); err != nil {
			return fmt.Errorf("cannot install %s into %s: %w", name, dir, err)
		}
	}
	if err := installLink(root, "crankx", "crankctl"); err != nil {
		return fmt.Errorf("cannot install crankx into %s: %w", dir, err)
	}
	return nil
}

func installFile(root *os.Root, name, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	temporary := "." + name + "-" + rand.Text()
	out, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer root.Remove(temporary) // nothing, once it has its name
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Chmod(0o755); err != nil { // whatever the umask is
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return root.Rename(temporary, name)
}

func installLink(root *os.Root, name, target string) error {
	temporary := "." + name + "-" + rand.Text()
	if err := root.Symlink(target, temporary); err != nil {
		return err
	}
	defer root.Remove(temporary)
	return root.Rename(temporary, name)
}
