// Package version says which build this is, from what the Go linker recorded.
package version

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// Info describes a build. What is not known is "".
type Info struct {
	Version  string // of the module: v1.2.3, a pseudo-version, or "devel"
	Revision string // of the source, in full
	Time     string // of the revision, RFC 3339
	Modified bool   // built from a tree with changes that were not committed
	Go       string // go1.26.0
	Platform string // linux/amd64
}

// What a build without the repository, such as the Dockerfile's, sets with -ldflags -X. They come before
// what the linker recorded.
var (
	release  string // Info.Version
	revision string // Info.Revision
)

// Get returns the Info of the running program. It is read once, at the first call.
var Get = sync.OnceValue(func() Info {
	build, _ := debug.ReadBuildInfo()
	info := fromBuild(build)
	info.Version = cmp.Or(release, info.Version)
	info.Revision = cmp.Or(revision, info.Revision)
	return info
})

// String describes the running program on one line, without its name.
func String() string { return Get().String() }

func fromBuild(build *debug.BuildInfo) Info {
	info := Info{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if build == nil { // built without module support
		return info
	}
	if v := build.Main.Version; v != "" && v != "(devel)" {
		info.Version = v
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.time":
			info.Time = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

// String returns "v1.2.3 (0123456789ab, 2026-01-02T03:04:05Z, modified, go1.26.0, linux/amd64)".
func (i Info) String() string {
	var facts []string
	if i.Revision != "" {
		facts = append(facts, i.Revision[:min(len(i.Revision), 12)])
	}
	if i.Time != "" {
		facts = append(facts, i.Time)
	}
	if i.Modified {
		facts = append(facts, "modified")
	}
	facts = append(facts, i.Go, i.Platform)
	return i.Version + " (" + strings.Join(facts, ", ") + ")"
}
