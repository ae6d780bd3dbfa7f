package servers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/ports"
	"github.com/crankctl/crank/test/programs"
)

// recipe is what a Dockerfile of deploy/recipes says.
type recipe struct {
	dir      string // in deploy/recipes
	packages []string
	files    map[string]string // where to: its name in dir
	env      []string
	workdir  string
	user     string
	command  []string
}

// readRecipe reads the Dockerfile of s: the few instructions, in the few forms, that the recipes use.
func readRecipe(s server) (*recipe, error) {
	name := s.recipe
	if name == "" {
		name = s.name
	}
	r := &recipe{dir: filepath.Join("..", "..", "deploy", "recipes", name), files: map[string]string{}, workdir: "/"}
	text, err := os.ReadFile(filepath.Join(r.dir, "Dockerfile"))
	if err != nil {
		return nil, err
	}
	comments := regexp.MustCompile(`(?m)^\s*#.*\n`)
	joined := strings.ReplaceAll(comments.ReplaceAllString(string(text), ""), "\\\n", " ")
	for line := range strings.Lines(joined) {
		if err := r.instruction(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%s/Dockerfile: %q: %w", r.dir, strings.TrimSpace(line), err)
		}
	}
	return r, nil
}

var (
	assignment = regexp.MustCompile(`(\w+)=("[^"]*"|\S+)`)
	install    = regexp.MustCompile(`apt-get install -y --no-install-recommends ([^&]+)`)
)

func (r *recipe) instruction(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	words := strings.Fields(rest)
	switch verb {
	case "", "FROM", "STOPSIGNAL", "HEALTHCHECK", "VOLUME":
	case "RUN":
		if m := install.FindStringSubmatch(rest); m != nil {
			r.packages = append(r.packages, strings.Fields(m[1])...)
		}
	case "COPY":
		if strings.HasPrefix(rest, "--from=crank ") {
			return nil
		}
		to := words[len(words)-1]
		for _, name := range words[:len(words)-1] {
			if strings.HasSuffix(to, "/") {
				r.files[to+name] = name
			} else {
				r.files[to] = name
			}
		}
	case "ENV":
		for _, m := range assignment.FindAllStringSubmatch(rest, -1) {
			r.env = append(r.env, m[1]+"="+strings.Trim(m[2], `"`))
		}
	case "WORKDIR":
		r.workdir = rest
	case "USER":
		r.user = rest
	case "ENTRYPOINT":
		if rest != `["crank", "--"]` {
			return errors.New("the entrypoint is not crank")
		}
	case "CMD":
		return json.Unmarshal([]byte(rest), &r.command)
	default:
		return errors.New("an instruction that the test does not know")
	}
	return nil
}

// missing says what the recipe needs and this machine has not.
func (r *recipe) missing() error {
	if err := programs.Works(r.command[0]); err != nil {
		return err
	}
	if r.command[0] == "sh" && r.version() == "?" { // what it starts is a script's
		return errors.New("not installed")
	}
	if _, err := user.Lookup(r.user); r.user != "" && err != nil {
		return fmt.Errorf("no user %s", r.user)
	}
	return nil
}

// version is that of the first package, which is the server itself.
func (r *recipe) version() string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", r.packages[0]).Output()
	if err != nil {
		return "?"
	}
	version, _, _ := strings.Cut(string(out), "-")
	return version
}

// placed is a recipe in a temporary directory, with loopback addresses and unused ports.
type placed struct {
	*recipe
	root    string
	address []string // of each port in CRANK_BIND, in order
	replace *strings.Replacer
}

var port = regexp.MustCompile(`:(\d+)`)

// at says what is replaced in the files, the environment and the command of the recipe so that it
// runs in root: a port of CRANK_BIND is another one, an address that is not loopback becomes 127.0.0.1, and
// the paths that the Dockerfile copies to, and further ones, are in root.
func (r *recipe) at(root string, further []string, change []string) *placed {
	p := &placed{recipe: r, root: root}
	pairs := slices.Clone(change)
	for _, variable := range r.env {
		sockets, ok := strings.CutPrefix(variable, "CRANK_BIND=")
		for _, m := range port.FindAllStringSubmatch(sockets, -1) {
			if !ok {
				break
			}
			free := ports.Unused()
			address := net.JoinHostPort("127.0.0.1", free)
			p.address = append(p.address, address)
			pairs = append(pairs, "0.0.0.0:"+m[1], address, ":"+m[1], address, m[1], free)
		}
	}
	pairs = append(pairs, "0.0.0.0", "127.0.0.1")

	paths := slices.Clone(further)
	for to := range r.files {
		paths = append(paths, filepath.Dir(to))
	}
	slices.Sort(paths)
	slices.Reverse(paths) // the longer ones first
	for _, path := range slices.Compact(paths) {
		pairs = append(pairs, path, root+path)
	}
	pairs = append(pairs, "/tmp/", root+"/tmp/")
	p.replace = strings.NewReplacer(pairs...)
	return p
}

// place writes the recipe's files as they are in version n, each with a rename, as a deployment does.
func (p *placed) place(t *testing.T, n int) {
	t.Helper()
	for to, name := range p.files {
		text, err := os.ReadFile(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(p.replace.Replace(string(text)), "version 1", fmt.Sprint("version ", n))
		path := p.root + to
		if err := errors.Join(
			os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path+".new", []byte(changed), info.Mode()),
			os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
}

// own gives everything in the temporary directory to uid and gid.
func own(root string, uid, gid int) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, gid))
	})
}
