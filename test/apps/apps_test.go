// Package apps runs the apps of docs/apps.md as they stand there, and beside each one a small program (testdata) that
// stops in the way that is usual in its ecosystem.
//
// Of the apps of the document no client may lose anything: neither while they are swapped under load, nor on a
// connection that is in the middle of something when the app is asked to stop. Of the usual ways it is shown that
// they do lose requests, so that we learn when one of them does no longer, and how many is printed.
//
// A language that is not installed is said loudly, and is an error with REQUIRE_APPS=1. The figures of the
// document are from a longer run:
//
//	go test -v -timeout 30m ./test/apps -all
package apps

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/programs"
)

const (
	document = "../../docs/apps.md"
	atOnce   = 2               // languages that are tested at a time
	patience = 2 * time.Minute // for a single thing on a busy machine; nothing is asserted about less
)

var (
	all      = flag.Bool("all", false, "take more swaps, and what takes long to build")
	required = os.Getenv("REQUIRE_APPS") != ""
)

// bin is where crank, crankctl and the app under test are.
var bin string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == smallSndbuf {
		fmt.Fprintln(os.Stderr, execWithSmallSndbuf(os.Args[2:]))
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(programs.Main(m, &bin))
}

// language is one of the document's.
type language struct {
	name  string // the heading of its section
	block string // the language of its code block there
	app   program
	usual program
}

// program is what is swapped.
type program struct {
	name   string   // of the usual way: what it calls
	file   string   // in testdata; of an app: what its block is saved as
	needs  []string // to build and run it
	debian string   // the packages that have that
	long   bool     // only with -all
	flags  []string // of crank
	java   []string // options
	slow   string   // the path of an answer that takes 1.5 s; empty: /slow
}

// So that what crank starts is the app, and knows when it is ready.
var java = []string{"-profile", "java", "-ready", "notify"}

var languages = []language{
	{
		name:  "Go", // its app is the README's; the app under test serves in the same way
		app:   program{slow: "/?delay=1500ms"},
		usual: program{name: "http.Server.Shutdown", file: "shutdown/main.go", needs: []string{"go"}},
	},
	{
		name: "Python", block: "python",
		app:   program{file: "app.py", needs: []string{"python3"}, debian: "python3"},
		usual: program{name: "http.server, shutdown", file: "http_server.py", needs: []string{"python3"}, debian: "python3"},
	},
	{
		name: "Python with asyncio", block: "python",
		app:   program{file: "app.py", needs: []string{"python3"}, debian: "python3"},
		usual: program{name: "asyncio, Server.close", file: "asyncio_server.py", needs: []string{"python3"}, debian: "python3"},
	},
	{
		name: "Node", block: "js",
		app:   program{file: "app.js", needs: []string{"node"}, debian: "nodejs"},
		usual: program{name: "http, close", file: "http.js", needs: []string{"node"}, debian: "nodejs"},
	},
	{
		name: "Java", block: "java",
		app: program{file: "App.java", needs: []string{"javac", "java"}, debian: "openjdk-17-jdk-headless", flags: java},
		usual: program{name: "com.sun.net.httpserver, stop", file: "Httpserver.java", needs: []string{"javac", "java"}, debian: "openjdk-17-jdk-headless", flags: java,
			java: []string{"--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens", "jdk.httpserver/sun.net.httpserver=ALL-UNNAMED"}},
	},
	{
		name: "Ruby", block: "ruby",
		app:   program{file: "app.rb", needs: []string{"ruby"}, debian: "ruby"},
		usual: program{name: "puma", file: "puma.rb", needs: []string{"puma"}, debian: "puma ruby-sd-notify", flags: []string{"-profile", "puma"}},
	},
	{
		name: "Rust", block: "rust",
		app: program{file: "app.rs", needs: []string{"rustc"}, debian: "rustc"},
		usual: program{name: "hyper, with_graceful_shutdown", file: "hyper/main.rs", needs: []string{"cargo", "/usr/share/cargo/registry/hyper-0.14.19"},
			debian: "cargo librust-hyper-dev librust-tokio-dev", long: true},
	},
}

func TestApps(t *testing.T) {
	var table report
	t.Run("all", func(t *testing.T) {
		slots := make(chan struct{}, atOnce)
		for _, l := range languages {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				t.Run("app", func(t *testing.T) { l.testApp(t, &table) })
				t.Run("usual", func(t *testing.T) { l.testUsual(t, &table) })
			})
		}
	})
	t.Logf("\n%s", table.String())
}

// testApp fails if the document's app loses anything.
func (l language) testApp(t *testing.T, table *report) {
	p := l.app
	if p.file == "" {
		table.add(p.swap(t, l.name, "drain", patience, []string{filepath.Join(bin, "app")}).judge(t))
		return
	}
	p.installed(t)
	source := markdown.Block(t, document, l.name, l.block)
	command := p.save(t, drainFor(t, source, 600))
	t.Run("Ctrl-C", func(t *testing.T) { p.interrupt(t, p.save(t, source)) })
	t.Run("connections", func(t *testing.T) { p.drains(t, command) })
	t.Run("deadline", func(t *testing.T) { p.deadline(t, withSmallSndbuf(p.save(t, large(t, drainFor(t, source, 1))))) })
	t.Run("unread", func(t *testing.T) { p.unread(t, withSmallSndbuf(p.save(t, large(t, drainFor(t, source, 600))))) })
	t.Run("swaps", func(t *testing.T) { table.add(p.swap(t, l.name, "drain", patience, command).judge(t)) })
}

// testUsual fails if the usual way has ceased to lose requests.
func (l language) testUsual(t *testing.T, table *report) {
	p := l.usual
	if p.long && !*all {
		t.Skipf("NOT TESTED: %s: only make apps runs it", p.name)
	}
	p.installed(t)
	command := p.build(t, filepath.Join("testdata", p.file))
	t.Run("connections", func(t *testing.T) { table.addCut(p.name, p.cuts(t, command)) })
	t.Run("swaps", func(t *testing.T) { table.add(p.swap(t, l.name, p.name, 20*time.Second, command)) })
}

// installed skips the test, or fails it, if anything the program needs is missing or does not work.
func (p program) installed(t *testing.T) {
	t.Helper()
	for _, need := range p.needs {
		if _, err := os.Stat(need); err == nil && filepath.IsAbs(need) {
			continue
		}
		if err := programs.Works(need); err != nil {
			p.missing(t, err.Error())
		}
	}
}

func (p program) missing(t *testing.T, what string) {
	t.Helper()
	message := fmt.Sprintf("NOT TESTED: %s: %s (Debian: %s)", t.Name(), what, p.debian)
	if required {
		t.Fatal(message)
	}
	t.Skip(message)
}

var drainTime = regexp.MustCompile(`(\bDRAIN\b[^=\n]*=) 25\b`)

// drainFor returns the source of an app that drains for that long at most: so long that only the end of the last
// connection can be what has ended it, or so short that only the time can.
func drainFor(t *testing.T, source string, seconds int) string {
	t.Helper()
	if found := drainTime.FindAllString(source, -1); len(found) != 1 {
		t.Fatalf("the app has %d lines that say how long it drains, want 1", len(found))
	}
	return drainTime.ReplaceAllString(source, fmt.Sprintf("${1} %d", seconds))
}

// save saves a source and returns the command of its program.
func (p program) save(t *testing.T, source string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), p.file)
	if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	return p.build(t, path)
}

// build makes a program of the file at path, where it has to be compiled, and returns its command.
func (p program) build(t *testing.T, path string) []string {
	t.Helper()
	dir := t.TempDir()
	app := filepath.Join(dir, "app")
	switch filepath.Base(path) {
	case "puma.rb":
		return []string{"sh", "-c", `exec puma --quiet --bind "${PUMA_INHERIT_0#*:}" --config "$0"`, path}
	case "main.go":
		run(t, ".", "go", "build", "-o", app, "./"+filepath.Dir(path))
		return []string{app}
	case "main.rs":
		if err := os.CopyFS(dir, os.DirFS(filepath.Dir(path))); err != nil { // cargo writes beside its manifest
			t.Fatal(err)
		}
		run(t, dir, "cargo", "build", "--release", "--offline")
		return []string{filepath.Join(dir, "target", "release", "usual")}
	}
	switch filepath.Ext(path) {
	case ".py":
		return []string{"python3", path}
	case ".js":
		return []string{"node", path}
	case ".rb":
		return []string{"ruby", path}
	case ".rs":
		run(t, ".", "rustc", "--edition", "2021", "-O", "-o", app, path)
		return []string{app}
	case ".java":
		run(t, ".", "javac", "-d", dir, path)
		return slices.Concat([]string{"java", "-XX:TieredStopAtLevel=1"}, p.java, []string{"-cp", dir, strings.TrimSuffix(filepath.Base(path), ".java")})
	}
	t.Fatalf("cannot make a program of %s", path)
	return nil
}

func run(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}
