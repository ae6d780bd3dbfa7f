package readme

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/markdown"
)

// kubectl is a fake with three pods; $SECOND selects the behaviour of the second. Its exec prints what crankctl reload prints.
const kubectl = `#!/bin/sh
line() { echo 'web: generation 2 started       pid 31' >&2; }
case "$*" in
"get pods "*)
  [ "$SECOND" != "no list" ] || { echo 'Unable to connect to the server' >&2; exit 1; }
  printf 'pod/web-%s\n' 1 2 3; exit ;;
"exec pod/web-"*" -- /crankctl reload") ;;
*) echo "kubectl cannot $*" >&2; exit 1 ;;
esac
echo "$2" >>"$CALLS"
[ "$2" != pod/web-2 ] || case $SECOND in
"breaks before") exit 0 ;;
"breaks during") line; exit 0 ;;
"breaks in the last line") line; printf 'swap'; exit 0 ;;
"swaps silently") line; echo 'web: generation 1 stopping      pid 15  SIGTERM' >&2; exit 0 ;;
"fails") echo 'error: swap failed, generation 1 (pid 15) still serving' >&2; exit 1 ;;
"is refused") echo 'error: generation 2 is starting' >&2; exit 4 ;;
esac
line; echo 'swapped web 1 -> 2 in 1.0s'
`

// The loop of docs/kubernetes.md continues only after a pod that has confirmed its swap, whatever the exit code of kubectl exec.
func TestLoopOverPods(t *testing.T) {
	loop := markdown.Block(t, "../../docs/kubernetes.md", "Every pod, one after another", "sh")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		second string
		code   int
		pods   string // told to reload
		says   string
	}{
		{"swaps", 0, "1 2 3", "swapped web 1 -> 2 in 1.0s"},
		{"breaks before", 1, "1 2", "outcome unknown: see crankctl status in pod/web-2"},
		{"breaks during", 1, "1 2", "outcome unknown: see crankctl status in pod/web-2"},
		{"breaks in the last line", 1, "1 2", "outcome unknown: see crankctl status in pod/web-2"},
		{"swaps silently", 1, "1 2", "outcome unknown: see crankctl status in pod/web-2"},
		{"fails", 1, "1 2", "swap failed"},
		{"is refused", 4, "1 2", "is starting"},
		{"no list", 1, "", "Unable to connect"},
	} {
		for _, shell := range [][]string{{"sh"}, {"bash", "-o", "pipefail", "-e"}} {
			t.Run(c.second+" "+shell[0], func(t *testing.T) {
				calls := filepath.Join(t.TempDir(), "calls")
				cmd := exec.Command(shell[0], append(shell[1:], "-c", loop)...)
				cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "CALLS="+calls, "SECOND="+c.second)
				out, _ := cmd.CombinedOutput()
				content, _ := os.ReadFile(calls)
				pods := strings.ReplaceAll(strings.Join(strings.Fields(string(content)), " "), "pod/web-", "")
				if code := cmd.ProcessState.ExitCode(); code != c.code || pods != c.pods || !strings.Contains(string(out), c.says) {
					t.Errorf("exit code %d, pods %q, want %d, %q\n%s", code, pods, c.code, c.pods, out)
				}
			})
		}
	}
}
