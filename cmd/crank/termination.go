package main

import (
	"os"
	"strings"
	"syscall"

	"github.com/crankctl/crank/pkg/supervisor"
)

// defaultTerminationLog is where the kubelet reads a container's last message from, if it made the
// file (the container's terminationMessagePath).
const defaultTerminationLog = "/dev/termination-log"

// terminationLimit is how much of it the kubelet keeps.
const terminationLimit = 4096

// writeTerminationLog writes why crank ends, and what the app wrote last. A file that cannot be
// written is nobody's concern: the same is in the log. A link is not followed, and a file with a second name is left alone: whoever
// can write to the directory could have made it, for crank to write to a file that only crank can.
func writeTerminationLog(path, name, reason string, tail supervisor.Tail) {
	flags := os.O_WRONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK // a FIFO that nobody reads must not stop the end
	switch path {
	case "off":
		return
	case "":
		path = defaultTerminationLog
	default:
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Nlink > 1 || f.Truncate(0) != nil {
		return
	}
	_, _ = f.WriteString(terminationMessage(name, reason, tail))
}

// terminationMessage keeps the reason and as many of the last lines as there is room for.
func terminationMessage(name, reason string, tail supervisor.Tail) string {
	message := strings.ToValidUTF8(name+": "+reason, "?") + "\n"
	if len(message) > terminationLimit {
		return strings.ToValidUTF8(message[:terminationLimit-1], "") + "\n"
	}
	lines := strings.Join(tail.Lines, "\n")
	if lines == "" {
		return message
	}
	if room := terminationLimit - len(message) - 1; len(lines) > room {
		lines = lines[len(lines)-room:]
		// Neither half a line nor half a letter at the begin.
		if _, whole, ok := strings.Cut(lines, "\n"); ok {
			lines = whole
		}
		lines = strings.ToValidUTF8(lines, "")
	}
	return message + lines + "\n"
}
