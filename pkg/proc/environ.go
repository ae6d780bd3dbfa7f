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
	// maxEnviron is how much of an environment is read: execve(2) takes no more of arguments and environment together, three
	// quarters of _STK_LIM (bprm_stack_limits in the kernel's fs/exec.c). A process can make it seem larger, up to the whole of its
	// memory, without any privilege: PR_SET_MM_MAP of prctl(2).
	maxEnviron = 6 << 20
	// maxValue is the length of the longest value that is found, and maxKey that of a key.
	maxValue = 1 << 10
	maxKey   = 64
	// overlap is how much of what was searched is searched again with what comes next.
	overlap = maxKey + maxValue + 2
)

// ErrNoEnviron is the error for a process that has an environment and shows none. So does every process for a moment of its
// execve(2), when it makes sense to look again, and one that hides it, for as long as it likes.
var ErrNoEnviron = errors.New("the process does not show its environment")

// chunks are the buffers of Environ.
var chunks = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Environ returns those of the variables that pid was executed with; of one that is there twice the first. It reads maxEnviron bytes at
// most, in constant memory, and passes over values longer than maxValue. It blocks for as long as the process keeps others
// from its memory, which one that is hostile may do for ever: it is for a goroutine that can be spared.
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

// findVariables reads "KEY=value" entries, each with a zero byte after it, until it has found all keys. n is how many bytes it has read.
// chunk is its memory, of more than overlap bytes.
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

// variable returns the value of the first entry of a key; last says that nothing comes after data. It searches for the key, since there
// may be millions of other entries.
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
			return "", false // it is too long, or found again with what comes next
		}
		if end <= maxValue {
			return string(data[:end]), true
		}
		data = data[end:]
	}
}

// hasEnviron reports whether a process that has shown no environment has one: the kernel shows none until it has set where that ends
// (fields 50 and 51 of proc_pid_stat(5), env_start and env_end), the last of what it sets. A zombie has none.
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
