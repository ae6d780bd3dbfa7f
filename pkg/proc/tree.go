package proc

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"

	"github.com/crankctl/crank/pkg/linux"
)

// Entry is one process of the system, as /proc/PID/stat has it (proc_pid_stat(5)).
type Entry struct {
	PID, Parent, Group, Session int
	Zombie                      bool
	Start                       uint64 // in clock ticks after boot: with PID it identifies a process for good
}

// Table is a look at all processes that /proc shows, by pid.
type Table map[int]Entry

// Exhausted reports whether err is a lack of descriptors or memory: the operation can be retried.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// Processes reads one line of each process from /proc. Processes that come or go meanwhile may be missed; a lack of descriptors is an
// error instead.
func Processes() (Table, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	t := Table{}
	line := make([]byte, maxStat)
	for {
		names, err := dir.Readdirnames(namesAtATime)
		if err := t.add(names, line); err != nil {
			return nil, err
		}
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// namesAtATime limits how many entries of a directory of /proc are in memory at a time.
const namesAtATime = 512

// add reads the processes among these names into line, one after the other.
func (t Table) add(names []string, line []byte) error {
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		e, ok, err := lookup(pid, line)
		if Exhausted(err) {
			return err
		}
		if ok {
			t[pid] = e
		}
	}
	return nil
}

// Lookup reads one process; ok is false where it does not exist or /proc hides it.
func Lookup(pid int) (e Entry, ok bool) {
	e, ok, _ = lookup(pid, make([]byte, maxStat))
	return e, ok
}

// maxStat exceeds the length of a stat line: 52 numbers of up to 20 digits, and a name of up to 64 bytes.
const maxStat = 2048

// lookup reads the stat line into line.
func lookup(pid int, line []byte) (e Entry, ok bool, err error) {
	n, err := linux.ReadOnce("/proc/"+strconv.Itoa(pid)+"/stat", line)
	if err != nil {
		return Entry{}, false, err
	}
	e, ok = parseStat(pid, line[:n])
	return e, ok, nil
}

// statFields returns the fields of a stat line from the third one, the state; none where it is not a stat line. The command's name, in
// parentheses, may contain anything, so the fields start after the last parenthesis.
func statFields(line []byte) [][]byte {
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return nil
	}
	return bytes.Fields(line[i+1:])
}

// parseStat reads a stat line.
func parseStat(pid int, b []byte) (e Entry, ok bool) {
	f := statFields(b)
	if len(f) < 20 {
		return Entry{}, false
	}
	num := func(i int) int { n, _ := strconv.Atoi(string(f[i])); return n }
	start, _ := strconv.ParseUint(string(f[19]), 10, 64)
	e = Entry{PID: pid, Parent: num(1), Group: num(2), Session: num(3), Zombie: f[0][0] == 'Z' || f[0][0] == 'X', Start: start}
	return e, true
}

// Within reports whether pid is root or a descendant of it.
func (t Table) Within(pid, root int) bool {
	for range len(t) + 1 {
		if pid == root {
			return true
		}
		e, ok := t[pid]
		if !ok {
			return false
		}
		pid = e.Parent
	}
	return false
}

// maxSmall exceeds the size of the other files of a process that crank reads: comm, statm, oom_score_adj.
const maxSmall = 256

// Name returns the name of the program that pid runs, cut off after 15 bytes (proc_pid_comm(5)); empty
// where it is gone.
func Name(pid int) string {
	b, _ := linux.ReadSmall("/proc/"+strconv.Itoa(pid)+"/comm", maxSmall)
	return string(bytes.TrimSuffix(b, []byte("\n")))
}

// maxStatus exceeds the length of the lines of /proc/PID/status up to the user ids.
const maxStatus = 1024

// User returns the real user id of a process; ok is false where /proc does not show it.
func User(pid int) (uid int, ok bool) {
	b := make([]byte, maxStatus)
	n, err := linux.ReadOnce("/proc/"+strconv.Itoa(pid)+"/status", b)
	if err != nil {
		return 0, false
	}
	_, line, _ := bytes.Cut(b[:n], []byte("\nUid:\t")) // the name of the process, before it, has its newlines escaped
	number, _, ok := bytes.Cut(line, []byte("\t"))
	uid, err = strconv.Atoi(string(number))
	return uid, ok && err == nil
}

// SignalEntry signals a process that was found in a Table, unless its pid has come to belong to
// another one since.
func SignalEntry(e Entry, sig syscall.Signal) error {
	fd, err := linux.PidfdOpen(e.PID)
	if err == nil {
		defer linux.Close(fd)
	}
	if now, ok := Lookup(e.PID); !ok || now.Start != e.Start {
		return nil
	}
	if err == nil {
		if unsupported, err := linux.PidfdSignal(fd, sig); !unsupported {
			return ignoreGone(err)
		}
	}
	return ignoreGone(linux.Kill(e.PID, sig))
}

// SetOOMScoreAdj writes /proc/PID/oom_score_adj.
func SetOOMScoreAdj(pid int, score string) error {
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(score), 0)
}

// OOMScoreAdj reads crank's own.
func OOMScoreAdj() (string, error) {
	b, err := linux.ReadSmall("/proc/self/oom_score_adj", maxSmall)
	return string(bytes.TrimSpace(b)), err
}

// ResidentBytes returns how much memory a process uses, shared pages included; 0 where it is gone.
func ResidentBytes(pid int) int64 {
	b, err := linux.ReadSmall("/proc/"+strconv.Itoa(pid)+"/statm", maxSmall)
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize())
}
