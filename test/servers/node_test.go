package servers

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/processes"
	"github.com/crankctl/crank/test/programs"
)

// descriptors prints whether descriptors 0 and 3 are the socket that crank passes as both.
const descriptors = `
const at = (fd) => { try { return require("fs").readlinkSync("/proc/self/fd/" + fd); } catch { return "closed"; } };
console.log("stdin " + at(0).startsWith("socket:") + " inherited " + (at(0) === at(3)));
`

// TestNodeParents: a Node parent passes on descriptors 0 to 2 and no others, as docs/recipes/node.md says. The server
// "npm start" of the table is swapped under load.
func TestNodeParents(t *testing.T) {
	for _, test := range []struct {
		name, want string
		command    []string
	}{
		{"node", "stdin true inherited true", []string{"node", "app.js"}},
		{"npm start", "stdin true inherited false", []string{"npm", "start"}},
		{"npx", "stdin true inherited false", []string{"npx", "node", "app.js"}},
		{"yarn start", "stdin true inherited false", []string{"yarn", "start"}},
		{"pnpm start", "stdin true inherited false", []string{"pnpm", "start"}},
		{"node --run", "stdin true inherited false", []string{"node", "--run", "start"}},
		{"the script, by a shell", "stdin true inherited true", []string{"sh", "-c", `exec $(node -p 'require("./package.json").scripts.start')`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if err := programs.Works(test.command[0]); err != nil {
				t.Skipf("NOT TESTED, %v: %s", err, test.name)
			}
			if out, _ := exec.Command("node", "--help").Output(); test.name == "node --run" && !strings.Contains(string(out), "--run") {
				t.Skipf("NOT TESTED, this node has no --run (it came with 22): %s", test.name)
			}
			dir := t.TempDir()
			manifest, err := json.Marshal(map[string]any{"name": "app", "version": "1.0.0", "scripts": map[string]string{"start": "node app.js"}})
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{"app.js": descriptors, "package.json": string(manifest)} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			flags := []string{"-ctl", "off", "-conf", "off", "-ready", "none", "-bind", "127.0.0.1:0", "-stdin-socket", "--"}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "crank"), append(flags, test.command...)...)
			cmd.Dir = dir
			cmd.Env = processes.Environment("HOME="+dir, "CRANK_PREFIX="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), test.want) {
				t.Errorf("%v, want %s:\n%s", err, test.want, out)
			}
		})
	}
}
