package seccomp

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// profilePath is in the format of the runtime specification, which Docker, containerd and CRI-O all read.
const profilePath = "../../deploy/seccomp/crank.json"

var update = flag.Bool("update", false, "add to "+profilePath+" what was recorded")

// file is the profile with the comments that its readers ignore. The first rule is what crank itself needs.
type file struct {
	DefaultAction   specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet *uint                    `json:"defaultErrnoRet"`
	Architectures   []specs.Arch             `json:"architectures"`
	Syscalls        []rule                   `json:"syscalls"`
}

type rule struct {
	Comment  string                   `json:"comment,omitempty"`
	Names    []string                 `json:"names"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet,omitempty"`
	Args     []arg                    `json:"args,omitempty"`
}

type arg struct {
	Index    uint                       `json:"index"`
	Value    uint64                     `json:"value"`
	ValueTwo uint64                     `json:"valueTwo"`
	Op       specs.LinuxSeccompOperator `json:"op"`
}

func readFile(t *testing.T) file {
	t.Helper()
	content, err := os.ReadFile(profilePath)
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(content, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// write keeps the format that TestFormat wants.
func (f file) write(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(profilePath, f.encode(t), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (f file) encode(t *testing.T) []byte {
	t.Helper()
	content, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(content, '\n')
}

// shipped is the profile as a container runtime reads it.
func shipped(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	content, err := os.ReadFile(profilePath)
	if err != nil {
		t.Fatal(err)
	}
	p := new(specs.LinuxSeccomp)
	if err := json.Unmarshal(content, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// runtimeDefault is what a container without capabilities gets from Docker; that of containerd and CRI-O is made from the same.
func runtimeDefault(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// allowed returns the names that a profile allows, whatever the arguments.
func allowed(p *specs.LinuxSeccomp) (names []string) {
	for _, r := range p.Syscalls {
		if r.Action == specs.ActAllow {
			names = append(names, r.Names...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Sorted, so that a change shows as what it is, and each name once.
func TestFormat(t *testing.T) {
	content, err := os.ReadFile(profilePath)
	if err != nil {
		t.Fatal(err)
	}
	f := readFile(t)
	if string(f.encode(t)) != string(content) {
		t.Errorf("%s is not written as go test -update would write it", profilePath)
	}
	whole := map[string]string{}
	for _, r := range f.Syscalls {
		if !slices.IsSorted(r.Names) {
			t.Errorf("%q: the names are not sorted", r.Comment)
		}
		for _, name := range r.Names {
			if len(r.Args) > 0 {
				name += " with arguments"
			} else if first, twice := whole[name]; twice {
				t.Errorf("%s is in two rules: %q and %q", name, first, r.Comment)
			}
			whole[name] = r.Comment
		}
	}
	for _, name := range []string{"clone", "socket"} {
		if comment, ok := whole[name]; ok {
			t.Errorf("%s is allowed with any arguments: %q", name, comment)
		}
	}
}

// It is to be stricter: what it allows the default of the engines allows too, and that is not all.
func TestStricterThanRuntimeDefault(t *testing.T) {
	ours, theirs := allowed(shipped(t)), allowed(runtimeDefault(t))
	for _, name := range ours {
		if !slices.Contains(theirs, name) {
			t.Errorf("%s is allowed here, and not by the default of the engines", name)
		}
	}
	t.Logf("%d system calls are allowed, %d by the default of the engines", len(ours), len(theirs))
	if len(ours) >= len(theirs) {
		t.Error("it is not stricter")
	}
}
