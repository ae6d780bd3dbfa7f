package proc

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/crankctl/crank/pkg/linux"
)

const (
	// maxEnviron is how much of an environment is read. execve(2) accepts no more of arguments and environment together: three
	// quarters of _STK_LIM (bprm_stack_limits in the kernel's fs/exec.c). Without any privilege a process can make its environment
	// seem larger, up to all of its memory, with PR_SET_MM_MAP of prctl(2).
	maxEnviron = 6 << 20
	// maxValue is the length of the longest value that is found, and maxKey that of a key.
	maxValue = 1 << 10
	maxKey   = 64
	// overlap is how many bytes of one piece are searched again with the next one.
	overlap = maxKey + maxValue + 2
)

// ErrNoEnviron is the error for a process that has an environment but shows none. Every process shows none for a moment of its
// execve(2), and then it makes sense to look again. A process that hides its environment shows none for as long as it likes.
var ErrNoEnviron = errors.New("the process does not show its environment")

// chunks are the buffers of Environ.
var chunks = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Environ returns the values of keys in the environment that pid was executed with; of duplicates it returns the first. It reads at
// most maxEnviron bytes, in constant memory, and skips values longer than maxValue. It blocks while the process keeps others from
// its memory, which a hostile process may do forever: call it from a goroutine that can be spared.
func Environ(pid int, keys ...string) (map[string]string, error) {
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	chunk := chunks.Get().(*[64 << 10]byte)
	defer chunks.Put(chunk)
	found, n, err := findVariables(io.LimitReader(file, maxEnviron), chunk[:], keys)
	if err == nil && n == 0 && hasEnviron(pid) {
		err = ErrNoEnviron
	}
	return found, err
}

// findVariables reads NUL-terminated "KEY=value" entries until it has found all keys. n is the number of bytes that it read. chunk is
// its buffer, of more than overlap bytes.
func findVariables(r io.Reader, chunk []byte, keys []string) (found map[string]string, n int, err error) {
	found = map[string]string{}
	chunk[0] = 0 // as before every other entry
	held := 1
	for len(found) < len(keys) {
		got, err := r.Read(chunk[held:])
		n += got
		data := chunk[:held+got]
		for _, key := range keys {
			if _, known := found[key]; known {
				continue
			}
			if value, ok := variable(data, key, err == io.EOF); ok {
				found[key] = value
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, n, err
		}
		held = copy(chunk, data[max(0, len(data)-overlap):])
	}
	return found, n, nil
}

// variable returns the value of the first entry for key; last says that no data follows. It searches for the key, since there may be
// millions of other entries.
func variable(data []byte, key string, last bool) (value string, ok bool) {
	mark := []byte("\x00" + key + "=")
	for {
		i := bytes.Index(data, mark)
		if i < 0 {
			return "", false
		}
		data = data[i+len(mark):]
		end := bytes.IndexByte(data, 0)
		if end < 0 && last {
			end = len(data)
		}
		if end < 0 {
			return "", false // too long, or found again with the next piece
		}
		if end <= maxValue {
			return string(data[:end]), true
		}
		data = data[end:]
	}
}

// hasEnviron reports whether a process that showed no environment has one. The kernel shows none until it has set the end of the
// environment, which it sets last (fields 50 and 51 of proc_pid_stat(5), env_start and env_end). A zombie has none.
func hasEnviron(pid int) bool {
	line, err := linux.ReadSmall("/proc/"+strconv.Itoa(pid)+"/stat", maxStat)
	if err != nil {
		return false
	}
	f := statFields(line)
	if len(f) < 49 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return false
	}
	start, end := string(f[47]), string(f[48])
	return end == "0" || start != end
}
