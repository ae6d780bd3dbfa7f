// Package seccomp runs crank under the profile that deploy/seccomp ships, and under the one that container engines use where
// nothing is said. It is a module of its own, for the sake of the latter.
package seccomp

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A profile becomes a program for the kernel (seccomp(2)) as libseccomp makes it, only simpler: for each rule a comparison
// of the number of the system call, then of its arguments, and the action. The first rule that matches decides.

// Where the fields of struct seccomp_data are. The halves of an argument are those of a little-endian machine.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// auditArch is what the kernel calls this machine (include/uapi/linux/audit.h).
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// x32 is in the numbers of the system calls of another ABI, which goes by the same architecture on amd64.
const x32 = 0x40000000

// compile returns the filter for a profile on this machine. Names that it does not have are left out.
func compile(p *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	numbers, err := numbers()
	if err != nil {
		return nil, err
	}
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no filter for %s", runtime.GOARCH)
	}
	otherwise, err := answer(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	filter := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, arch, 1, 0), give(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber), jump(unix.BPF_JGE, x32, 0, 1), otherwise,
	}
	for _, rule := range p.Syscalls {
		action, err := answer(rule.Action, rule.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range rule.Names {
			number, ok := numbers[name]
			if !ok {
				continue
			}
			args, err := compareArgs(rule.Args)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			filter = append(filter, jump(unix.BPF_JEQ, number, 0, uint8(len(args)+1)))
			filter = append(append(filter, args...), action)
			if len(args) > 0 {
				filter = append(filter, load(offsetNumber))
			}
		}
	}
	filter = append(filter, otherwise)
	if len(filter) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions are too many", len(filter))
	}
	return filter, nil
}

// compareArgs jumps over the action that follows unless all of the arguments match.
func compareArgs(args []specs.LinuxSeccompArg) ([]unix.SockFilter, error) {
	var filter []unix.SockFilter
	for _, arg := range args {
		low, high := offsetArgs+8*uint32(arg.Index), offsetArgs+8*uint32(arg.Index)+4
		switch arg.Op {
		case specs.OpEqualTo:
			filter = append(filter, load(high), unlessEqual(uint32(arg.Value>>32)), load(low), unlessEqual(uint32(arg.Value)))
		case specs.OpMaskedEqual:
			filter = append(filter, load(high), and(uint32(arg.Value>>32)), unlessEqual(uint32(arg.ValueTwo>>32)),
				load(low), and(uint32(arg.Value)), unlessEqual(uint32(arg.ValueTwo)))
		case specs.OpLessThan:
			if arg.Value>>32 != 0 {
				return nil, fmt.Errorf("less than %d", arg.Value)
			}
			filter = append(filter, load(high), unlessEqual(0), load(low), unlessLess(uint32(arg.Value)))
		default:
			return nil, fmt.Errorf("operator %s", arg.Op)
		}
	}
	for i := range filter { // the end is known only now
		if filter[i].Jf == toTheEnd {
			filter[i].Jf = uint8(len(filter) - i)
		}
		if filter[i].Jt == toTheEnd {
			filter[i].Jt = uint8(len(filter) - i)
		}
	}
	return filter, nil
}

const toTheEnd = 255

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

func jump(comparison uint16, value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, K: value, Jt: yes, Jf: no}
}

func unlessEqual(value uint32) unix.SockFilter { return jump(unix.BPF_JEQ, value, 0, toTheEnd) }
func unlessLess(value uint32) unix.SockFilter  { return jump(unix.BPF_JGE, value, toTheEnd, 0) }

func give(what uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what}
}

// answer is what the kernel does. Without a number an error is EPERM, as in libseccomp's users.
func answer(action specs.LinuxSeccompAction, errno *uint) (unix.SockFilter, error) {
	switch action {
	case specs.ActAllow:
		return give(unix.SECCOMP_RET_ALLOW), nil
	case specs.ActErrno:
		number := uint32(unix.EPERM)
		if errno != nil {
			number = uint32(*errno)
		}
		return give(unix.SECCOMP_RET_ERRNO | number), nil
	}
	return unix.SockFilter{}, fmt.Errorf("action %s", action)
}

// numbers returns the numbers of all system calls of this machine by name, from the source of golang.org/x/sys.
func numbers() (map[string]uint32, error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	file, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_"+runtime.GOARCH+".go"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	line := regexp.MustCompile(`^\s+SYS_(\w+)\s+= (\d+)$`)
	all := map[string]uint32{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if m := line.FindStringSubmatch(lines.Text()); m != nil {
			number, err := strconv.ParseUint(m[2], 10, 32)
			if err != nil {
				return nil, err
			}
			all[strings.ToLower(m[1])] = uint32(number)
		}
	}
	return all, lines.Err()
}
