// Package peers replays the checks of the test suites of tini, dumb-init and Server::Starter as stories of crank's own: each with crank
// and with the peers in the same run. A difference fails the test unless the story lists it, with a reason and the document that explains
// it; so does a listed difference that no longer exists. docs/peers.md has the tables.
package peers

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/crankctl/crank/test/markdown"
	"github.com/crankctl/crank/test/programs"
	"github.com/crankctl/crank/test/terminal"
)

var (
	bin    string // crank, crankctl
	inside string // prepares namespaces, and plays apps
	player string // plays the other apps

	update = flag.Bool("update", false, "write the tables into docs/peers.md")
)

func TestMain(m *testing.M) { os.Exit(programs.Main(m, &bin, "test/pid1/inside", "test/peers/player")) }

// suites in the order of the document.
var suites = []suite{
	{name: "tini", columns: []who{crank, tini, dumbInit, catatonit}, stories: tiniStories},
	{name: "dumb-init", columns: []who{crank, tini, dumbInit, catatonit}, stories: dumbInitStories},
	{name: "terminal", columns: []who{crank, tini, dumbInit, catatonit}, stories: terminalStories, needs: []string{"bash", "tac"}},
	{name: "Server::Starter", columns: []who{crank, starter}, stories: starterStories},
}

// find returns the path of a program, or an error that says why there is no comparison with it.
func find(program who) (string, error) {
	if program == crank {
		return filepath.Join(bin, "crank"), nil
	}
	if err := programs.Works(string(program)); err != nil {
		return "", err
	}
	return exec.LookPath(string(program))
}

// TestStories runs every story with every program, and prints the tables.
func TestStories(t *testing.T) {
	try := exec.Command("/bin/true")
	if try.SysProcAttr = namespaces(); try.Run() != nil {
		t.Skipf("NOT TESTED: %s: cannot create pid namespaces: only root can, or a user with user namespaces", t.Name())
	}
	inside, player = filepath.Join(bin, "inside"), filepath.Join(bin, "player")
	paths := map[who]string{}
	for _, program := range []who{crank, tini, dumbInit, catatonit, starter} {
		path, err := find(program)
		if err != nil {
			t.Logf("NOT TESTED: stories with %s: %v", program, err)
		}
		paths[program] = path
	}
	for _, suite := range suites {
		t.Run(suite.name, func(t *testing.T) {
			programs.Need(t, suite.needs...)
			var mu sync.Mutex
			found := map[string]outcomes{}
			t.Cleanup(func() {
				t.Log("\n" + suite.table(func(s story) outcomes { return found[s.name] }))
			})
			for _, story := range suite.stories {
				t.Run(story.name, func(t *testing.T) {
					t.Parallel()
					got := story.play(t, paths)
					mu.Lock()
					found[story.name] = got
					mu.Unlock()
					if err := story.judge(got); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// play runs a story with each program that is installed, all at the same time.
func (s story) play(t *testing.T, paths map[who]string) outcomes {
	var (
		mu  sync.Mutex
		all sync.WaitGroup
		got = outcomes{}
	)
	for program, want := range s.want {
		if paths[program] == "" {
			continue
		}
		ttys := make([]*terminal.Terminal, 2) // opened here: another goroutine may not end the test
		for i := range s.as.children() {
			if s.tty {
				ttys[i] = terminal.Open(t, false)
			}
		}
		all.Go(func() {
			var cells []string
			for i, child := range s.as.children() {
				r := &run{who: program, path: paths[program], flags: s.flags[program], child: child, want: want, tty: ttys[i]}
				cells = append(cells, r.outcome(s.run))
			}
			cell := cells[0]
			if cells[len(cells)-1] != cell {
				cell = fmt.Sprintf("%s as PID 1, %s otherwise", cells[0], cells[1])
			}
			mu.Lock()
			got[program] = cell
			mu.Unlock()
		})
	}
	all.Wait()
	return got
}

// outcome runs the story once. A failure is an outcome too.
func (r *run) outcome(play func(*run) (string, error)) (text string) {
	defer func() {
		for _, end := range r.ending {
			end()
		}
	}()
	var err error
	if r.dir, err = os.MkdirTemp("", "p"); err != nil {
		return err.Error()
	}
	r.ending = append(r.ending, func() { os.RemoveAll(r.dir) })
	if text, err = play(r); err != nil {
		return "failed: " + err.Error()
	}
	return text
}

// TestDocument: docs/peers.md has the outcomes listed by the stories, whatever is installed.
func TestDocument(t *testing.T) {
	const path = "../../docs/peers.md"
	for _, suite := range suites {
		begin, end := fmt.Sprintf("<!-- %s: go test ./test/peers -update -->", suite.name), fmt.Sprintf("<!-- end of %s -->", suite.name)
		table := suite.table(func(s story) outcomes { return s.want })
		if *update {
			if err := markdown.Splice(path, begin, end, table); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), begin+"\n"+table+end+"\n") {
			t.Errorf("docs/peers.md does not have the stories of %s (error %v): go test ./test/peers -run TestDocument -update", suite.name, err)
		}
	}
}

// TestReasons: the stories are well formed, their names are unique, and the section that gives a reason exists.
func TestReasons(t *testing.T) {
	for _, suite := range suites {
		names := map[string]bool{}
		for _, s := range suite.stories {
			if err := s.check(); err != nil {
				t.Errorf("%s, %s: %v", suite.name, s.name, err)
			}
			if names[s.name] {
				t.Errorf("%s has two stories %q", suite.name, s.name)
			}
			names[s.name] = true
			if s.doc != "" && !headings(t, s.doc) {
				t.Errorf("%s, %s: docs/%s does not exist", suite.name, s.name, s.doc)
			}
		}
	}
}

// headings reports whether FILE.md#HEADING is a heading of a document, by its link name.
func headings(t *testing.T, doc string) bool {
	t.Helper()
	file, want, _ := strings.Cut(doc, "#")
	text, err := os.ReadFile(filepath.Join("../../docs", file))
	if err != nil {
		t.Error(err)
		return false
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			anchor := strings.ReplaceAll(strings.ToLower(title), " ", "-")
			if strings.NewReplacer(",", "", ":", "", "`", "", "(", "", ")", "").Replace(anchor) == want {
				return true
			}
		}
	}
	return false
}

// TestJudge: which outcomes fail a story.
func TestJudge(t *testing.T) {
	s := story{want: outcomes{crank: "a", tini: "a", dumbInit: "b"}}
	for _, tt := range []struct {
		got  outcomes
		want string
	}{
		{outcomes{crank: "a", tini: "a", dumbInit: "b"}, ""},
		{outcomes{crank: "a"}, ""}, // nothing else is installed
		{outcomes{crank: "c", tini: "a"}, `crank: "c", want "a"`},
		{outcomes{crank: "a", tini: "c"}, `unlisted difference: tini: "c", want "a"`},
		{outcomes{crank: "a", dumbInit: "a"}, `stale difference: dumb-init now does as crank does: "a", no longer "b"`},
	} {
		if err := s.judge(tt.got); fmt.Sprint(err) != tt.want && (err != nil || tt.want != "") {
			t.Errorf("%v: %v, want %q", tt.got, err, tt.want)
		}
	}
}
