package load

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crankctl/crank/test/programs"
)

// warmUp is what the apps below do before they can serve. Until then they answer "early".
const warmUp = `
import os, time
open(os.environ["WARMING"], "w").close()
def warmed(): return os.path.exists(os.environ["OPEN"])
`

// frameworks are apps that warm up where their framework allows it; early marks those that accept meanwhile, and answer live clients.
// docs/apps.md has the table.
var frameworks = []struct {
	name    string
	early   bool
	program string
	command []string
	files   map[string]string
}{
	{"gunicorn, import", false, "gunicorn", []string{"gunicorn", "app:app"}, map[string]string{"app.py": warmUp + `
while not warmed(): time.sleep(0.01)
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"new"]
`}},
	{"gunicorn, thread", true, "gunicorn", []string{"gunicorn", "app:app"}, map[string]string{"app.py": warmUp + `
def app(environ, start_response):
    answer = b"new" if warmed() else b"early"
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
`}},
	{"uvicorn, lifespan", false, "uvicorn", []string{"uvicorn", "--fd", "3", "app:app"}, lifespan},
	{"hypercorn, lifespan", false, "hypercorn", []string{"hypercorn", "--bind", "fd://3", "app:app"}, lifespan},
	{"node, before listen", false, "node", []string{"node", "app.js"}, map[string]string{"app.js": nodeApp + `
const wait = setInterval(() => { if (warmed()) { clearInterval(wait); server.listen({ fd: 3 }); } }, 10);
`}},
	{"node, in the callback", true, "node", []string{"node", "app.js"}, map[string]string{"app.js": nodeApp + `
server.listen({ fd: 3 }, () => { const wait = setInterval(() => { if (warmed()) clearInterval(wait); }, 10); });
`}},
}

var lifespan = map[string]string{"app.py": warmUp + `
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        while not warmed(): await asyncio.sleep(0.01)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    answer = b"new" if warmed() else b"early"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})
`}

const nodeApp = `
const fs = require("fs"), http = require("http");
fs.writeFileSync(process.env.WARMING, "");
const warmed = () => fs.existsSync(process.env.OPEN);
const server = http.createServer((req, res) => res.end(warmed() ? "new" : "early"));
process.on("SIGTERM", () => process.exit(0));
`

// TestFrameworksWarmUp: whether an app that is still warming up answers live clients depends on where it warms up.
func TestFrameworksWarmUp(t *testing.T) {
	for _, f := range frameworks {
		t.Run(f.name, func(t *testing.T) {
			programs.Need(t, f.program)
			i := startOn(t, []string{web}, []string{"-ready", "exec:test {generation} = 1 -o -e DIR/open", "-start", "120s", "-settle", "0"}, app("-body", "old")...)
			for name, content := range f.files {
				if err := os.WriteFile(filepath.Join(i.dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			open, warming := filepath.Join(i.dir, "open"), filepath.Join(i.dir, "warming")
			script := fmt.Sprintf(`cd %s; export OPEN=%s WARMING=%s; exec "$@"`, i.dir, open, warming)
			i.startCandidate(append([]string{"sh", "-c", script, "sh"}, f.command...), func() bool {
				_, err := os.Stat(warming)
				return err == nil
			})
			early := 0
			deadline := time.Now().Add(patience)
			for n := 0; n < 80 || f.early && early == 0 && time.Now().Before(deadline); n++ {
				if i.answer() == "early" {
					early++
				}
			}
			if (early > 0) != f.early {
				t.Errorf("%d clients were answered by an app that was still warming up", early)
			}
			if err := os.WriteFile(open, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			i.idle()
			if got := i.answer(); got != "new" {
				t.Errorf("%q from the new generation", got)
			}
		})
	}
}
