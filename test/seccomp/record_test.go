package seccomp

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crankctl/crank/test/programs"
)

// What other tests make crank do can be recorded as well:
//
//	mkdir /tmp/traces
//	CRANK_TEST_STRACE=/tmp/traces go test -count=1 ./test/script ./test/pid1 ./test/probes
//	cd test/seccomp && go test -run TestRecorded -traces /tmp/traces -update
var traces = flag.String("traces", "", "also take what was recorded in this directory")

// What crank does in the story of this package is in the profile. Another version of Go, or another machine, may have crank do
// other calls: -update adds them to the rule for crank itself.
func TestRecorded(t *testing.T) {
	if err := programs.Works("strace"); err != nil {
		t.Skipf("NOT TESTED: whether the profile has every call that crank makes: %v", err)
	}
	dir := *traces
	if dir == "" {
		dir = t.TempDir()
		tell(t, world{trace: dir})
	}
	seen, err := recordedBelow(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 30 {
		t.Fatalf("no more was recorded than %v", seen)
	}
	f := readFile(t)
	if *update {
		f.add(slices.Sorted(maps.Keys(seen)))
		f.write(t)
	}
	names := allowed(shipped(t))
	for name := range seen {
		if !slices.Contains(names, name) {
			t.Errorf("crank calls %s, which %s does not allow: go test -run TestRecorded -update", name, profilePath)
		}
	}
}

// add puts names into the rule for crank itself, out of the others, unless one looks at their arguments.
func (f *file) add(names []string) {
	own := f.Syscalls[0].Names
	for _, r := range f.Syscalls[1:] {
		if len(r.Args) > 0 || r.Action != specs.ActAllow {
			names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(r.Names, name) })
		}
	}
	own = append(own, names...)
	slices.Sort(own)
	f.Syscalls[0].Names = slices.Compact(own)
	for i := range f.Syscalls[1:] {
		if r := &f.Syscalls[i+1]; len(r.Args) == 0 {
			r.Names = slices.DeleteFunc(r.Names, func(name string) bool { return slices.Contains(own, name) })
		}
	}
}

// The reader of traces, with a program that makes a thread, and a process that executes another program.
func TestRecorder(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"x.7.7": `execve("/crank", ["crank"], 0x7ffc /* 3 vars */) = 0
clone(child_stack=0xc000, flags=CLONE_VM|CLONE_FS|CLONE_THREAD, tls=0xc0) = 8
clone(child_stack=NULL, flags=CLONE_VM|CLONE_PIDFD|CLONE_VFORK|SIGCHLD, parent_tid=[9]) = 9
--- SIGURG {si_signo=SIGURG} ---
futex(0x1, FUTEX_WAIT_PRIVATE, 0, NULL) = 0
+++ exited with 0 +++
`,
		"x.7.8": "openat(AT_FDCWD, \"/etc\", O_RDONLY) = 3\nsyscall_0x1c4(0xb, 0x7, 0x1b6, 0x1000, 0, 0) = 0\nsyscall_0xfffffffffffffffc(0) = -1\n",
		"x.7.9": "setpgid(0, 0) = 0\nexecve(\"/no\", 0x1, 0x2) = -1 ENOENT (No such file or directory)\nexecve(\"/app\", 0x1, 0x2) = 0\nptrace(PTRACE_TRACEME) = 0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := recordedBelow(dir)
	if want := []string{"clone", "execve", "fchmodat2", "futex", "openat", "setpgid"}; err != nil || !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("got %v, %v, want %v", seen, err, want)
	}
}
