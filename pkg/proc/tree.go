package proc

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/crankctl/crank/pkg/linux"
)

// Entry is one process of the system, as /proc/PID/stat has it (proc_pid_stat(5)).
type Entry struct {
	PID, Parent, Group, Session int
	Zombie                      bool
	Status                      linux.WaitStatus // how a zombie has ended
	Start                       uint64           // in clock ticks after boot: with PID it names a process for ever
}

// Table is a look at all processes that /proc shows, by pid.
type Table map[int]Entry

// Exhausted reports whether err is for want of descriptors or memory: what it kept from being done can be tried again.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// Processes reads /proc. Processes that come or go meanwhile may be missed; none is for want of descriptors.
func Processes() (Table, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	t := make(Table, len(names))
	line := make([]byte, maxStat)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			e, ok, err := lookup(pid, line)
			if Exhausted(err) {
				return nil, err
			}
			if ok {
				t[pid] = e
			}
		}
	}
	return t, nil
}

// Lookup reads one process; ok is false where it does not exist or /proc hides it.
func Lookup(pid int) (e Entry, ok bool) {
	e, ok, _ = lookup(pid, make([]byte, maxStat))
	return e, ok
}

// maxStat is more than a stat line is long: 52 numbers of up to 20 digits, and a name of up to 64 bytes.
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

// statFields returns the fields of a stat line from the third on, the state; none where it is no such line. The command's name, in
// parentheses, may hold anything, so what follows its last parenthesis counts.
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
	if e.Zombie && len(f) >= 50 {
		e.Status = linux.WaitStatus(num(49))
	}
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

// Environ returns a variable of the environment that pid was executed with. For a moment of execve(2) there is none to be read, which
// it waits out, for some milliseconds at most.
func Environ(pid int, key string) (string, bool) {
	path := "/proc/" + strconv.Itoa(pid) + "/environ"
	b, err := os.ReadFile(path)
	for try := 0; err == nil && len(b) == 0 && try < 10 && hasEnviron(pid); try++ {
		time.Sleep(time.Millisecond)
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return "", false
	}
	for entry := range bytes.SplitSeq(b, []byte{0}) {
		if k, v, ok := bytes.Cut(entry, []byte{'='}); ok && string(k) == key {
			return string(v), true
		}
	}
	return "", false
}

// hasEnviron reports whether a process that has shown no environment has one: the kernel shows none until it has set where that ends
// (fields 50 and 51 of proc_pid_stat(5), env_start and env_end), the last of what it sets. A zombie has none.
func hasEnviron(pid int) bool {
	line := make([]byte, maxStat)
	n, err := linux.ReadOnce("/proc/"+strconv.Itoa(pid)+"/stat", line)
	if err != nil {
		return false
	}
	f := statFields(line[:n])
	if len(f) < 49 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return false
	}
	start, end := string(f[47]), string(f[48])
	return end == "0" || start != end
}

// Name returns the name of the program that pid runs, cut off after 15 bytes (proc_pid_comm(5)); empty
// where it is gone.
func Name(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return string(bytes.TrimSuffix(b, []byte("\n")))
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
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	return string(bytes.TrimSpace(b)), err
}

// ResidentBytes returns how much memory a process uses, shared pages included; 0 where it is gone.
func ResidentBytes(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
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
